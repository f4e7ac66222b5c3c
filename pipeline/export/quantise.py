"""K-quants by llama.cpp's own code, and other architectures by its own converter.

Reads a 16-bit GGUF file and writes a smaller one: through a `llama-quantize` on PATH where there is one, else tensor by tensor
through the quantiser inside the xllamacpp package, which needs no compiler. Both are checked to be what was asked for.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.schema import InputError
from eval.engines.gguf_metadata import read_metadata
from pipeline.export.whole_files import require_space, whole_file

if TYPE_CHECKING:
    import numpy
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor

KQuant = Literal["q4_k_m", "q5_k_m", "q6_k"]
MOSTLY = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K", "q6_k": "Q6_K"}
BLOCK = 256  # weights that share their scales: a row's length must be a multiple
ROWS = 4096  # quantised at a time by one thread


def quantise_gguf(source: Path, out: Path, quant: KQuant) -> Path:
    """Write the f16 or bf16 file `source` as the K-quant `out`.

    Raises InputError where there is no quantiser, the model's rows do not divide into blocks of 256, or the disk is full;
    RuntimeError where the quantiser fails, or the result has no K-quant tensors.
    """
    if quant not in MOSTLY:
        raise InputError(f"quant {quant!r} is no K-quant: {', '.join(MOSTLY)}.")
    refuse_odd_rows(source)
    require_space(out.parent, source.stat().st_size // 2, f"The GGUF file {out.name}")
    with whole_file(out) as partial:
        if shutil.which("llama-quantize"):
            _run(["llama-quantize", source, partial, quant.upper()])
        elif find_spec("xllamacpp"):
            _quantise_tensors(source, partial, quant)
        else:
            raise InputError(f"{quant} needs llama.cpp's quantiser: pip install xllamacpp, or put llama-quantize on PATH.")
        require_k_quants(partial, quant)
    return out


def convert_with_checkout(checkout: Path, model: Path, out: Path, quant: Literal["f16", "bf16", "q8_0"]) -> Path:
    """Convert an architecture that `pipeline.export.gguf` does not know with the converter of a llama.cpp checkout."""
    script = checkout / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise InputError(f"{checkout}: no llama.cpp checkout (convert_hf_to_gguf.py is missing).")
    with whole_file(out) as partial:
        _run([sys.executable, script, model, "--outfile", partial, "--outtype", quant])
    return out


def refuse_odd_rows(source: Path) -> None:
    """llama.cpp quietly falls back to other types for such rows; a file named q4_k_m then has no such tensor."""
    for tensor in read_metadata(source).tensors:
        if len(tensor.shape) > 1 and tensor.shape[0] % BLOCK:
            raise InputError(
                f"{source}: rows of {tensor.name} have {tensor.shape[0]} weights, no multiple of {BLOCK}: "
                "this model has no K-quants. Use q8_0."
            )


def require_k_quants(path: Path, quant: KQuant) -> None:
    """Raises RuntimeError unless most of the file's matrices are of the type its name promises."""
    from gguf import GGMLQuantizationType

    types = [GGMLQuantizationType(tensor.type).name for tensor in read_metadata(path).tensors if len(tensor.shape) > 1]
    if 2 * types.count(MOSTLY[quant]) < len(types) or any(not kind.endswith("_K") for kind in types):
        raise RuntimeError(f"The quantiser wrote no {quant}: the file's matrices are of type {', '.join(sorted(set(types)))}.")


def tensor_type(name: str, layers: int, tied: bool, quant: KQuant) -> GGMLQuantizationType:
    """The type of a Llama's matrix in llama.cpp's mixture (`llama_tensor_get_type` in its llama-quant.cpp).

    The output matrix, or the embeddings where they serve as one, and half of the value and down projections get six bits.
    """
    from gguf import GGMLQuantizationType

    six = name == ("token_embd.weight" if tied else "output.weight")
    if name.endswith(("attn_v.weight", "ffn_down.weight")):
        layer, eighth = int(name.split(".")[1]), layers // 8
        six = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    return GGMLQuantizationType["Q6_K" if six else MOSTLY[quant]]


def _quantise_tensors(source: Path, out: Path, quant: KQuant) -> None:
    from gguf import GGUFReader, GGUFWriter
    from gguf.quants import quant_shape_to_byte_shape

    reader = GGUFReader(source)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    _copy_settings(reader, writer, quant)
    layers, tied = reader.fields["llama.block_count"].contents(), all(t.name != "output.weight" for t in reader.tensors)
    types = {t.name: tensor_type(t.name, layers, tied, quant) for t in reader.tensors if len(t.shape) > 1}
    for tensor in reader.tensors:
        shape, kind = tensor.shape[::-1].tolist(), types.get(tensor.name, tensor.tensor_type)
        stored = quant_shape_to_byte_shape(shape, kind)
        size = stored[0] * stored[-1] if len(stored) > 1 else stored[0]
        writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, size, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in reader.tensors:
            kind = types.get(tensor.name)
            writer.write_tensor_data(tensor.data if kind is None else _quantise(tensor, kind))
    finally:
        writer.close()


def _copy_settings(reader: GGUFReader, writer: GGUFWriter, quant: KQuant) -> None:
    """All that the file says of itself and its tokenizer, but for the type of its weights."""
    from gguf import GGUFValueType, LlamaFileType

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{quant.upper()}"])


def _quantise(tensor: ReaderTensor, kind: GGMLQuantizationType) -> numpy.ndarray:
    """The matrix's quantised bytes [rows, bytes a row], blocks of rows side by side on all processors."""
    import numpy
    from gguf import dequantize
    from gguf.quants import quant_shape_to_byte_shape

    columns, rows = tensor.shape.tolist()
    quantised = numpy.empty(quant_shape_to_byte_shape((rows, columns), kind), dtype=numpy.uint8)
    ggml = _ggml()
    ggml.ggml_quantize_init(int(kind))

    def quantise_rows(start: int) -> None:
        weights = dequantize(tensor.data[start : start + ROWS], tensor.tensor_type)
        weights = numpy.ascontiguousarray(weights, dtype=numpy.float32)
        block = quantised[start : start + ROWS]
        written = ggml.ggml_quantize_chunk(int(kind), weights.ctypes.data, block.ctypes.data, 0, len(block), columns, None)
        if written != block.nbytes:
            raise RuntimeError(f"llama.cpp's quantiser wrote {written} bytes of {tensor.name}, not {block.nbytes}.")

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(quantise_rows, range(0, rows, ROWS)))
    return quantised


def _ggml() -> ctypes.CDLL:
    """The ggml library inside xllamacpp, of whose C interface (ggml.h) two functions are called."""
    import xllamacpp

    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    try:
        library.ggml_quantize_init.argtypes = [ctypes.c_int]
        library.ggml_quantize_chunk.restype = ctypes.c_size_t
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    except AttributeError as error:
        raise RuntimeError("This xllamacpp keeps its quantiser to itself; put llama.cpp's llama-quantize on PATH.") from error
    return library


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{Path(command[0]).name} failed: {said[-1] if said else f'status {done.returncode}'}")
