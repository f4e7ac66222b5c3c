"""`medner serve --export-space DIR`: a folder that starts as it is, here by `python app.py` or as a Space on the Hub.

It contains the page's own source and the model (or its Hub id), so nothing of it depends on what lies on this machine.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from data.schema import InputError
from pipeline.export.names import is_repository
from pipeline.export.whole_files import whole_folder
from pipeline.extract.extractor import read_asked, read_gguf_asked
from pipeline.extract.open_model import adapter_of

PACKAGES = ("data", "eval", "pipeline")
REQUIRED = (
    "accelerate", "filelock", "gguf", "httpx", "huggingface_hub", "jinja2", "llguidance", "numpy", "peft", "pydantic", "pyyaml",
    "safetensors", "tokenizers", "torch", "tqdm", "transformers", "xllamacpp",
)  # fmt: skip
APP = '''"""Lists the chemicals, diseases and relations of a text. Made by `medner serve --export-space`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from pipeline.extract.open_model import load_extractor  # noqa: E402
from pipeline.serve.page import build_page, serve_page  # noqa: E402

MODEL = {model}

serve_page(build_page({{{name!r}: load_extractor(MODEL)}}, {title!r}), None, None)  # host and port: Gradio's own variables
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
---

Lists the chemicals, the diseases and their relations of a biomedical text. Not medical advice.
"""


def export_space(model: str, folder: Path) -> list[str]:
    """Write the Space; returns the names in its folder. Raises InputError where that is not empty, or it would not run."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--export-space {folder}: is not empty; nothing was written")
    source = Path(model).expanduser()
    if not source.exists() and not is_repository(model):
        raise InputError(f"--model {model}: a Space needs a run, an adapter, a model's folder, a GGUF file, or a Hub id")
    if source.is_dir():
        source = adapter_of(source)
        refuse_local_base(source)
    if source.exists():  # a Space has no flags to say how its model is asked
        (read_gguf_asked if source.is_file() else read_asked)(source)
    name = source.name if source.is_file() else Path(model).resolve().name if source.exists() else model.rpartition("/")[2]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rmdir()
    with whole_folder(folder) as part:
        place = repr(model)
        if source.exists():
            target = part / "model" / (source.name if source.is_file() else "")
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copy if source.is_file() else shutil.copytree
            copy(source, target)
            place = "str(HERE / 'model')" if source.is_dir() else f"str(HERE / 'model' / {source.name!r})"
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "sample.jsonl")
            shutil.copytree(Path(__file__).parents[2] / package, part / package, ignore=ignored)
        title = f"medner {name}"
        (part / "app.py").write_text(APP.format(model=place, name=name, title=title), encoding="utf-8")
        (part / "README.md").write_text(README.format(title=json.dumps(title), gradio=version("gradio")), encoding="utf-8")
        pins = [f"{one}=={version(one).partition('+')[0]}" for one in REQUIRED]
        (part / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def refuse_local_base(folder: Path) -> None:
    """Raises InputError for an adapter whose base model is a path of this machine."""
    facts = folder / "medner.json"
    base = json.loads(facts.read_text(encoding="utf-8"))["base_model"] if facts.is_file() else "tiny"
    if base not in ("tiny", "smollm2-135m") and (Path(base).expanduser().exists() or not is_repository(base)):
        raise InputError(f"--model {folder}: its base model {base} lies on this machine only; export a GGUF and give that")
