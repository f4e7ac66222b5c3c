"""What a GGUF file says: as the `gguf` package reads it, quickly with a large vocabulary; a broken file is refused."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy
import pytest
from gguf import GGUFReader, GGUFWriter

from data.schema import InputError
from eval.engines.gguf_metadata import read_metadata


def write_gguf(path: Path, tokens: int = 40, merges: int = 30) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_name("β-model")
    writer.add_context_length(2048)
    writer.add_rope_freq_base(500000.0)
    writer.add_add_bos_token(True)
    writer.add_array("general.languages", ["en", "de"])
    writer.add_array("medner.ratios", [0.5, 0.25])
    writer.add_token_list([f"Ġ{number}" for number in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_token_merges([f"Ġ {number}" for number in range(merges)])
    writer.add_tensor("token_embd.weight", numpy.arange(320, dtype=numpy.float32).reshape(5, 64))
    writer.add_tensor("output_norm.weight", numpy.ones(64, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_reads_what_the_gguf_package_reads(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    ours, theirs = read_metadata(path), GGUFReader(path)
    assert ours.fields == {key: one.contents() for key, one in theirs.fields.items() if not key.startswith("GGUF.")}
    assert len(ours.tensors) == 2
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, list(one.shape), one.type) == (other.name, other.shape.tolist(), other.tensor_type)
        assert ours.data + one.offset == other.data_offset


def test_a_vocabulary_of_llama_3s_size_takes_no_time(tmp_path):
    path = write_gguf(tmp_path / "large.gguf", tokens=128_256, merges=280_147)
    started = time.process_time()
    assert len(read_metadata(path).fields["tokenizer.ggml.merges"]) == 280_147
    first = time.process_time() - started
    assert first < 3, "the gguf package's reader takes a minute"
    started = time.process_time()
    read_metadata(path)
    assert time.process_time() - started < first / 10, "read once"


def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    assert len(read_metadata(path).fields["tokenizer.ggml.tokens"]) == 40
    write_gguf(path, tokens=41)
    assert len(read_metadata(path).fields["tokenizer.ggml.tokens"]) == 41


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 4, 20, *range(24, len(whole) - 31, 37)):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.gguf: (not a GGUF file|a broken or cut off GGUF file)"):
            read_metadata(cut)


def test_no_flipped_bits_end_in_another_error(tmp_path):
    whole, chance = write_gguf(tmp_path / "whole.gguf").read_bytes(), random.Random(0)
    path = tmp_path / "flipped.gguf"
    for _ in range(400):
        flipped = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            flipped[chance.randrange(4, 1500)] = chance.randrange(256)
        path.write_bytes(flipped)
        try:
            read_metadata(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
