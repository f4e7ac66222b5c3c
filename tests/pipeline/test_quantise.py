"""K-quants: llama.cpp's own types in llama.cpp's own mixture, loaded by a real llama.cpp."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path

import numpy
import pytest
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from llama_server import complete, prompt_ids, serve
from tiny_llama import save_base

from data.schema import InputError
from pipeline.export.gguf import convert_to_gguf
from pipeline.export.quantise import convert_with_checkout, quantise_gguf, require_k_quants, tensor_type

FILE_TYPES = {"q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}


@pytest.fixture(scope="module")
def f16(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return convert_to_gguf(save_base(folder / "model", layers=9), folder / "model.f16.gguf", "f16", {"general.name": "Llama"})


@pytest.mark.slow
@pytest.mark.parametrize("quant", FILE_TYPES)
def test_the_file_holds_k_quants_near_the_weights_and_answers(quant, f16, tmp_path):
    path = quantise_gguf(f16, tmp_path / f"model.{quant}.gguf", quant)
    source, made = GGUFReader(f16), GGUFReader(path)
    assert [tensor.name for tensor in made.tensors] == [tensor.name for tensor in source.tensors]
    for old, new in zip(source.tensors, made.tensors, strict=True):
        before, after = (dequantize(tensor.data, tensor.tensor_type) for tensor in (old, new))
        assert abs(before - after).max() <= 0.1 * abs(before).max(), new.name
    settings = {name: field.contents() for name, field in made.fields.items() if not name.startswith("GGUF.")}
    before = {name: field.contents() for name, field in source.fields.items() if not name.startswith("GGUF.")}
    assert settings == {**before, "general.file_type": FILE_TYPES[quant]}
    assert path.stat().st_size < 0.5 * f16.stat().st_size
    with serve(f16) as client:
        expected = prompt_ids(client, [{"role": "user", "content": "5-HT(1A)"}])
    with serve(path) as client:
        assert prompt_ids(client, [{"role": "user", "content": "5-HT(1A)"}]) == expected
        assert len(complete(client, expected, 5, ignore_eos=True)["tokens"]) == 5


@pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="llama-cpp-python, the reference here, is absent")
@pytest.mark.parametrize("quant", FILE_TYPES)
def test_every_byte_is_that_of_llama_cpps_own_program(quant, f16, tmp_path):
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = FILE_TYPES[quant], 1
    reference = tmp_path / "reference.gguf"
    assert llama_cpp.llama_model_quantize(bytes(f16), bytes(reference), settings) == 0
    ours = {tensor.name: tensor for tensor in GGUFReader(quantise_gguf(f16, tmp_path / "ours.gguf", quant)).tensors}
    for tensor in GGUFReader(reference).tensors:
        assert ours[tensor.name].tensor_type == tensor.tensor_type, tensor.name
        assert numpy.array_equal(ours[tensor.name].data, tensor.data), tensor.name


@pytest.mark.parametrize(
    ("name", "tied", "kind"),
    [  # the mixture of Llama-3.2-3B-Instruct-Q4_K_M: 28 layers, 3 at either end and every third between
        ("token_embd.weight", True, "Q6_K"),
        ("token_embd.weight", False, "Q4_K"),
        ("output.weight", False, "Q6_K"),
        ("blk.0.attn_v.weight", True, "Q6_K"),
        ("blk.3.attn_v.weight", True, "Q4_K"),
        ("blk.5.ffn_down.weight", True, "Q6_K"),
        ("blk.23.ffn_down.weight", True, "Q6_K"),
        ("blk.22.ffn_down.weight", True, "Q4_K"),
        ("blk.24.ffn_down.weight", True, "Q6_K"),
        ("blk.0.attn_q.weight", True, "Q4_K"),
        ("blk.27.ffn_up.weight", True, "Q4_K"),
    ],
)
def test_the_mixture(name, tied, kind):
    assert tensor_type(name, 28, tied, "q4_k_m") == GGMLQuantizationType[kind]


def test_rows_that_blocks_do_not_divide_are_refused(tmp_path):
    f16 = convert_to_gguf(save_base(tmp_path / "model", width=192), tmp_path / "model.f16.gguf", "f16", {})
    with pytest.raises(InputError, match="192 weights, no multiple of 256"):
        quantise_gguf(f16, tmp_path / "model.q4_k_m.gguf", "q4_k_m")
    with pytest.raises(RuntimeError, match="of type F16"):
        require_k_quants(f16, "q4_k_m")
    with pytest.raises(InputError, match="no K-quant"):
        quantise_gguf(f16, tmp_path / "model.q8_0.gguf", "q8_0")
    assert not list(tmp_path.glob("*q4*"))


def put_on_path(folder: Path, code: str, monkeypatch) -> None:
    """A program that stands where llama.cpp's would."""
    program = folder / "llama-quantize"
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\n{code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
def test_a_program_on_path_is_used_and_not_believed(f16, tmp_path, monkeypatch):
    made = quantise_gguf(f16, tmp_path / "made.gguf", "q4_k_m")
    put_on_path(tmp_path, f"assert sys.argv[3] == 'Q4_K_M'; shutil.copyfile({str(made)!r}, sys.argv[2])", monkeypatch)
    assert quantise_gguf(f16, tmp_path / "again.gguf", "q4_k_m").read_bytes() == made.read_bytes()
    put_on_path(tmp_path, "shutil.copyfile(sys.argv[1], sys.argv[2])", monkeypatch)
    with pytest.raises(RuntimeError, match="wrote no q4_k_m: the file's matrices are of type F16"):
        quantise_gguf(f16, tmp_path / "wrong.gguf", "q4_k_m")
    put_on_path(tmp_path, "sys.exit('no such type')", monkeypatch)
    with pytest.raises(RuntimeError, match="llama-quantize failed: no such type"):
        quantise_gguf(f16, tmp_path / "wrong.gguf", "q4_k_m")
    assert not list(tmp_path.glob("*wrong*"))


def test_another_architecture_goes_through_a_checkout(f16, tmp_path):
    with pytest.raises(InputError, match="no llama.cpp checkout"):
        convert_with_checkout(tmp_path, tmp_path, tmp_path / "model.gguf", "f16")
    script = "import shutil, sys; assert sys.argv[2::2] == ['--outfile', '--outtype']; "
    (tmp_path / "convert_hf_to_gguf.py").write_text(f"{script} shutil.copyfile({str(f16)!r}, sys.argv[3])\n")
    made = convert_with_checkout(tmp_path, tmp_path, tmp_path / "model.gguf", "f16")
    assert made.read_bytes() == f16.read_bytes()
