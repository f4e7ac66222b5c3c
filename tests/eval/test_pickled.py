"""Weights that can run code when they are read are refused before they are."""

from __future__ import annotations

import pickle

import pytest
from tiny_llama import save_adapter, save_base

from data.schema import InputError
from eval.engines.pickled import refuse_pickled
from pipeline.cli import main


class Planted:
    """A pickle that makes a file when it is read."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


def replace_weights(folder, name, planted):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / name).write_bytes(pickle.dumps(Planted(planted)))


@pytest.mark.parametrize(("kind", "name"), [("base", "pytorch_model.bin"), ("adapter", "adapter_model.bin")])
def test_a_pickled_model_or_adapter_is_refused_and_never_read(tmp_path, capsys, kind, name):
    base = save_base(tmp_path / "base", width=64)
    folder = base if kind == "base" else save_adapter(base, tmp_path / "adapter")
    planted = tmp_path / "planted"
    replace_weights(folder, name, planted)
    capsys.readouterr()
    ask = ["extract", "--model", str(folder), "--layout", "separate", "Lithium caused tremor."]
    assert main(ask) == 2
    said = capsys.readouterr().err
    assert f"{folder / name}: weights in a pickle" in said and said.count("\n") == 1
    assert not planted.exists()


def test_safetensors_beside_a_pickle_will_do(tmp_path):
    base = save_base(tmp_path / "base", width=64)
    (base / "pytorch_model.bin").write_bytes(b"x")
    (base / "training_args.bin").write_bytes(b"x")
    refuse_pickled(base)
    refuse_pickled("owner/name")
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pickle"):
        refuse_pickled(base)
