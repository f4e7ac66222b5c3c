"""`--model` -> an `Extractor`: a run, an adapter, a merged folder, a GGUF file, a Hub id or a server's address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.corpus import read_corpus
from data.prompts import Layout
from data.schema import TASKS, InputError
from data.split import read_split_folder
from eval.chats import Engine
from eval.engines.gguf_metadata import read_metadata
from eval.engines.open import open_engine
from eval.scoring.baselines import learn_dictionary
from eval.scoring.confidence import calibrate, collect_items
from eval.scoring.logprobs import has_answers, read_completions, score_items
from eval.scoring.parse import parse_completions
from eval.scoring.score import match_answers
from pipeline.extract.extractor import Asked, Extractor, read_asked, read_gguf_asked
from pipeline.extract.windows import OVERLAP, WINDOW
from pipeline.variant import ADDRESS

DEFAULT_TOKENS = {"chemicals": 256, "diseases": 256, "relations": 384}  # where nobody says what the model was trained with


def load_extractor(
    model: str | Path,
    *,
    lora: str | Path | None = None,
    engine: str | None = None,
    grounded: bool = True,
    like: str | Path | None = None,
    layout: Layout | None = None,
    max_new_tokens: int | Mapping[str, int] | None = None,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    keep_unwritten: bool = False,
    min_confidence: float = 0.0,
    known_names: str | Path | None = None,
    batch_tokens: int = 16_384,
) -> Extractor:
    """The model as a function from texts to extractions; loads it.

    `model`: a run folder, an adapter's or a model's folder, a GGUF file, a Hub id (owner/name), a server's address.
    `lora`: an adapter's GGUF file, laid over a `model` that is its base's GGUF file.
    `engine`: "transformers", "llama.cpp", "vllm" or "openai"; by default what fits the model. `grounded`: only names that
    stand in the text can be answered. `like`: a run, an adapter or a GGUF that says how the model was trained to be asked, for
    a server or a model not made here; or `layout` and `max_new_tokens` say it. `window`, `overlap`: characters.
    `keep_unwritten`: keep names that are not in the text (ungrounded answers only). `min_confidence`: leave out what is less
    sure, 0 to 1. `known_names`: a corpus, or a run, whose train's names are added where the model did not list them.
    Raises InputError for a model that is not there or does not say how it must be asked.
    """
    check_reading(min_confidence, window, overlap)
    known = learn_dictionary(read_corpus(find_known(known_names)).documents) if known_names else None
    name = str(model)
    folder = None if name.startswith(ADDRESS) else find_model(name)
    if lora and not (folder and folder.is_file()):
        raise InputError(f"--lora {lora}: only with a --model that is a GGUF file, its base's")
    asked = find_asked(name, folder, like or lora, layout, max_new_tokens)
    answer = open_answering(name, folder, engine, grounded, like, asked, batch_tokens, lora)
    return Extractor(answer, asked, window, overlap, keep_unwritten, min_confidence, known)


def find_known(known_names: str | Path) -> Path:
    """The corpus whose names are known: the file itself, or a run's train. Raises InputError for a path that is neither."""
    path = Path(known_names)
    file = path / "data" / "train.jsonl" if is_run(path) else path
    if not file.is_file():
        raise InputError(f"--known-names {path}: no such file; give a corpus or a run")
    return file


def check_reading(min_confidence: float, window: int, overlap: int) -> None:
    """Raises InputError for values of `load_extractor` that cannot be."""
    if not 0 <= min_confidence < 1:
        raise InputError(f"--min-confidence {min_confidence}: expected a fraction from 0 up to but not 1")
    if not 0 <= overlap < window:
        raise InputError(f"--window {window}, --overlap {overlap}: a window must be longer than its overlap")


def find_model(name: str) -> Path:
    """The file or folder that a name means; a Hub id is downloaded (weights as safetensors or GGUF only)."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or name.endswith(".gguf"):
        raise InputError(f"--model {name}: no such file or folder; a Hub id is owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from pipeline.hub_reach import read_local_only

    try:
        wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=read_local_only()))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"--model {name}: not a path here, and the Hub does not give it: {str(error).splitlines()[0]}"
        ) from None


def find_asked(
    name: str,
    folder: Path | None,
    like: str | Path | None,
    layout: Layout | None,
    max_new_tokens: int | Mapping[str, int] | None,
) -> Asked:
    """How the model must be asked: as `layout` and `max_new_tokens` say, else `like`, else the model itself."""
    if layout:
        tokens = max_new_tokens or DEFAULT_TOKENS
        return Asked(layout, dict.fromkeys(TASKS, tokens) if isinstance(tokens, int) else tokens)
    source = Path(like) if like else folder
    if source is None:
        raise InputError(
            f"--model {name}: a server does not say how its model was trained to be asked; give --like or --layout"
        )
    if not source.exists():
        raise InputError(f"--like {source}: no such file or folder")
    asked = read_gguf_asked(source) if source.is_file() else read_asked(adapter_of(source))
    if is_run(source):
        asked = replace(asked, calibration=calibrate_run(source))
    if isinstance(max_new_tokens, int):
        return replace(asked, max_new_tokens=dict.fromkeys(asked.max_new_tokens, max_new_tokens))
    return asked


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of this project, rather than an adapter or a model."""
    return (folder / "manifest.json").is_file()


def adapter_of(folder: Path) -> Path:
    """The folder of a run's adapter; any other folder as it is."""
    return folder / "adapter" if is_run(folder) else folder


def calibrate_run(run: Path) -> dict[str, tuple[float, float]]:
    """(slope, intercept) by task from the run's own validation answers; nothing where it has none with log-probabilities."""
    path = run / "eval" / "validation" / "completions.jsonl"
    rows = read_completions(path) if has_answers(path) else []
    if not rows or not all(row.get("logprobs") for row in rows):
        return {}
    documents = read_split_folder(run / "data")["validation"]
    return calibrate(collect_items(match_answers(documents, parse_completions(rows)), score_items(rows)))


def open_answering(
    name: str,
    folder: Path | None,
    engine: str | None,
    grounded: bool,
    like: str | Path | None,
    asked: Asked,
    batch_tokens: int,
    lora: str | Path | None = None,
) -> Engine:
    """The engine that answers for the model."""
    settings: dict[str, Any] = {"grounded": grounded, "logprobs": True}
    if folder is None:
        kind = engine or "openai"
        if kind == "llama.cpp" and grounded:
            if not like or Path(like).is_file():
                raise InputError(
                    f"--model {name}: grounded answers from a llama-server need its tokenizer; give --like RUN or ADAPTER"
                )
            from pipeline.model import load_tokenizer

            settings["tokenizer"] = load_tokenizer(adapter_of(Path(like)))
        return open_engine(kind, name, **settings)
    if folder.is_file():
        return open_engine("llama.cpp", str(folder), context=context_of(folder, asked), lora=lora, **settings)
    if engine not in (None, "transformers"):
        return open_engine(engine, str(adapter_of(folder)), **settings)
    return open_with_transformers(adapter_of(folder), settings | {"batch_tokens": batch_tokens})


def context_of(path: Path, asked: Asked) -> int:
    """Positions a chat may take in llama.cpp: the model's own, or what a window and its answers need, if that is less."""
    fields = read_metadata(path).fields
    if fields.get("general.type") == "adapter":
        raise InputError(f"{path}: an adapter alone; give its base's GGUF file as --model, and this one as --lora")
    positions = fields[f"{fields['general.architecture']}.context_length"]
    return min(positions, 4096 + sum(asked.max_new_tokens.values()))


def open_with_transformers(folder: Path, settings: Mapping[str, Any]) -> Engine:
    """An adapter with its base model, or a whole model, on the GPU where there is one."""
    import json

    from pipeline.model import load_model, load_tokenizer, prepare_engine

    prepare_engine()  # before transformers
    from eval.engines.huggingface import transformers_engine
    from pipeline.config import apply_settings
    from pipeline.plan.hardware import detect_device

    facts = folder / "medner.json"
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    base = adapter.get("base_model_name_or_path", str(folder))
    if adapter and facts.is_file():
        base = json.loads(facts.read_text(encoding="utf-8"))["base_model"]
    device = detect_device()
    dtype = "float32" if device.kind == "cpu" else "bfloat16" if device.bfloat16 else "float16"
    wanted = {"model.name": base, "model.revision": adapter.get("revision"), "model.dtype": dtype, "model.load_in_4bit": False}
    chosen = apply_settings(wanted)
    model = load_model(chosen, adapter=folder if adapter else None)
    return transformers_engine(model, load_tokenizer(folder), **settings)
