"""The model card: a run's files told to a reader, and to the Hub's leaderboards as `model-index` metadata.

Reads config.yaml, manifest.json, adapter/medner.json, data/audit.json, eval/test/metrics.json and export/parity.json of a run
folder. What is not there is left out, or said to be missing; no figure is written that is not in a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.prompts import SYSTEM
from data.schema import TASKS
from data.table import Table, as_markdown, percent
from eval.report.tables import build_tables, render_markdown
from pipeline.config import Settings
from pipeline.export.names import licence_of, llama_version, published_base
from pipeline.publish.card_use import Shipped, render_licence, render_limits, render_use
from pipeline.run_folder import read_run

DETAILS = ("relations", "generalisation")  # not the faults: their examples quote the corpus, which is not ours to publish
LISTED = {
    "chemicals": "its chemicals",
    "diseases": "its diseases",
    "relations": "the pairs of a chemical and a disease that it influences",
}
CONVENTION = """\
Per document and task, sets of strings are compared after the same normalisation on both sides (Unicode NFKC, letter case, white
space, surrounding quotes, `. , ; :` and unmatched brackets). Whatever is predicted and not gold is a false positive; an answer
that cannot be read predicts nothing. Intervals are 95 %, by resampling documents. These are neither strict spans nor concept
identifiers, so they cannot be set beside figures of those conventions."""


@dataclass(frozen=True)
class Facts:
    """What a run folder says of itself; None where a file is not there."""

    run: Path
    settings: Settings
    manifest: Mapping
    adapter: Mapping
    audit: Mapping | None
    metrics: Mapping | None
    parity: Mapping | None

    @property
    def name(self) -> str:
        return (self.manifest.get("repo") or self.run.name).rpartition("/")[2]

    @property
    def taught(self) -> tuple[str, ...]:
        """The tasks that train had answers to; all where the run does not say."""
        return tuple(task for task in TASKS if task in self.adapter.get("max_new_tokens", TASKS)) or TASKS

    @property
    def base(self) -> str:
        return published_base({"base_model": self.settings.model.name, **self.adapter})


def write_card(run: Path) -> str:
    """The text of README.md. Raises InputError where `run` is no run folder."""
    facts = read_facts(run)
    sections = [
        f"---\n{render_metadata(facts)}\n---",
        f"# {facts.name}\n\n{render_opening(facts)}",
        f"## Results\n\n{render_results(facts.metrics)}",
        f"## What is shipped answers as what was trained\n\n{render_shipped(facts.parity)}",
        f"## Data\n\n{render_data(facts)}",
        f"## Training\n\n{render_training(facts)}",
        f"## Use\n\n{render_use(describe_shipped(facts))}",
        f"## Limits\n\n{render_limits(facts.taught)}",
        f"## Licence\n\n{render_licence(facts.base)}",
    ]
    return "\n\n".join(sections) + "\n"


def read_facts(run: Path) -> Facts:
    """All that the card tells of a run, from its files; what is missing is None."""
    folder = read_run(run)
    names = ("data/audit.json", "eval/test/metrics.json", "export/parity.json")
    adapter = _read(run / "adapter/medner.json") or {}
    return Facts(run, folder.settings, folder.manifest, adapter, *(_read(run / name) for name in names))


def describe_shipped(facts: Facts) -> Shipped:
    """What the card's commands name; without a repository, the run folder's own files, as seen from it."""
    repo, files, modelfile = facts.manifest.get("repo"), ggufs(facts.run), facts.run / "export/Modelfile"
    served = re.search(r"^FROM \./(.+)$", modelfile.read_text(encoding="utf-8"), re.MULTILINE) if modelfile.is_file() else None
    gguf = served[1] if served and served[1] in files else files[-1] if files else None
    parameters = _read(facts.run / "export/params") or {}
    tokens = max((facts.adapter.get("max_new_tokens") or {"": 256}).values())
    return Shipped(
        repo=repo,
        base=facts.base,
        rank=facts.settings.lora.r,
        layout=facts.adapter.get("layout", "separate"),
        system=facts.adapter.get("system_prompt", SYSTEM),
        answer_tokens=tokens,
        context=parameters.get("num_ctx", 4096),
        gguf=gguf,
        taught=facts.taught,
    )


def ggufs(run: Path) -> list[str]:
    """The names of a run's GGUF files."""
    return sorted(path.name for path in (run / "export").glob("*.gguf"))


def render_metadata(facts: Facts) -> str:
    """The card's YAML header, model-index included."""
    from huggingface_hub import ModelCardData

    licence = licence_of(facts.base) or facts.adapter.get("origin", {}).get("license")
    data = ModelCardData(
        language="en",
        license=licence,
        library_name="peft",
        pipeline_tag="text-generation",
        # A local path or the embedded model is nobody's repository, and the Hub would refuse the card.
        base_model=facts.base if facts.base.count("/") == 1 and not facts.base.startswith((".", "/", "~")) else None,
        tags=["biomedical", "named-entity-recognition", "relation-extraction", "lora"] + ["gguf"] * bool(ggufs(facts.run)),
        model_name=facts.name,
        eval_results=evaluation_results(facts) or None,
    )
    return data.to_yaml().strip()


def evaluation_results(facts: Facts) -> list:
    """Precision, recall and F1 of each task on test, for the card's metadata; none without an evaluation."""
    from huggingface_hub import EvalResult

    source = data_name(facts)
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Names and relations listed from biomedical abstracts",
            dataset_type="other",
            dataset_name=f"{source}, test split by article",
            dataset_args={"sha256": facts.manifest.get("data_sha256"), "documents": facts.metrics["documents"]},
            metric_type=kind,
            metric_name=f"{kind} of sets of strings, {task}",
            metric_value=round(facts.metrics["tasks"][task][kind], 4),
        )
        for task in TASKS
        if facts.metrics and task in facts.metrics["tasks"]
        for kind in ("f1", "precision", "recall")
    ]


def write_eval_results(run: Path) -> str | None:
    """The test split's F1 as the Hub's `.eval_results/*.yaml`, its leaderboards' newer form; None without a Hub data set.

    An entry must name its data set on the Hub (`publish.dataset`); figures of data that are not there stay in the card alone.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    facts = read_facts(run)
    dataset = facts.settings.publish.dataset
    if not dataset or not facts.metrics or not facts.metrics["tasks"]:
        return None
    digest = facts.manifest.get("data_sha256")
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=task,
            value=round(facts.metrics["tasks"][task]["f1"], 4),
            notes=f"F1 of sets of strings, test split by article, {facts.metrics['documents']} articles, data sha256 {digest}",
        )
        for task in TASKS
        if task in facts.metrics["tasks"]
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def data_name(facts: Facts) -> str:
    """The corpus files' names, without the folders they lay in."""
    return ", ".join(sorted({Path(file).name for file in facts.manifest.get("data", {}).values()})) or "the run's data"


def render_opening(facts: Facts) -> str:
    """What the model is, what it was made from, and what it must not be used for."""
    remark = facts.adapter.get("origin", {}).get("remark")
    built = "**Built with Llama.** " if llama_version(facts.base) else ""
    *others, last = [LISTED[task] for task in facts.taught]
    listed = f"{', '.join(others)}, and {last}" if others else last
    return (
        f"{built}A LoRA adapter of `{facts.base}` that reads a biomedical abstract and lists {listed}, "
        "one item a line, in the article's own words."
        f"{f' It was trained on a copy of that base: {remark}' if remark else ''}\n\n"
        "**Not a medical device.** It makes mistakes, and nothing it lists may be used to diagnose, to treat, or to decide "
        "about a patient without a specialist who has read the source."
    )


def render_results(metrics: Mapping | None) -> str:
    """The tables of scores on test, with the rates of faults; or that there was no evaluation."""
    if not metrics:
        return "This run has not been evaluated on a test split; nothing is claimed."
    tables = build_tables(metrics, ["scores"])
    known = {name: rate for name, rate in metrics.get("rates", {}).items() if rate is not None and name != "empty"}
    rates = ", ".join(f"{name.replace('_', ' ')} {rate:.1%}" for name, rate in known.items())
    blocks = ["On the test split.", *map(as_markdown, tables)]
    blocks.append(CONVENTION)
    blocks += [f"Faults: {rates} (duplicate and ungrounded of items, the others of answers)."] if rates else []
    more = render_markdown(metrics, DETAILS).strip()
    blocks += ["<details><summary>By convention and by kind of name</summary>", more, "</details>"] if more else []
    return "\n\n".join(blocks)


def render_shipped(parity: Mapping | None) -> str:
    """How far each exported file's answers are from the adapter's."""
    if not parity or not parity["models"]:
        return "No exported file was compared with the adapter."
    rows = []
    for name, facts in parity["models"].items():
        changes = [_change(facts["tasks"].get(task)) for task in TASKS]
        prompts = f"{facts['identical_prompts']} of {facts['prompts']}" if "prompts" in facts else ""
        passed = "yes" if facts["passed"] else "undecided" if facts.get("verdict") == "undecided" else "NO"
        rows.append((name, *changes, percent(facts["exact_completions"]), prompts, passed))
    return (
        f"On {parity['documents']} validation articles each file answered what the adapter was asked. Change of F1 in points "
        "with its 95 % interval, share of answers equal letter by letter, and prompts that become the same tokens:\n\n"
        + as_markdown(Table(("file", *TASKS, "equal answers", "same prompts", "passed"), tuple(rows)))
    )


def _change(figures: Mapping | None) -> str:
    if not figures:
        return ""
    low, high = figures["ci95"]
    return f"{100 * figures['change']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def render_data(facts: Facts) -> str:
    """The data's name and sha256, its split, leaks, and what share of test's names train has."""
    lines = [f"- {data_name(facts)}, sha256 `{facts.manifest.get('data_sha256')}`"]
    audit = facts.audit
    if not audit:
        return "\n".join([*lines, "- No audit of the split was found in the run."])
    sizes = ", ".join(f"{name} {part['documents']}" for name, part in audit.get("split", {}).items())
    kind = "as given by the user" if audit.get("given_split") else "by article, near-duplicates kept together"
    lines.append(f"- Split {kind}: {sizes} articles")
    if leaks := audit.get("leaks"):
        found = f"**{leaks['articles']} articles stand in two splits**" if leaks["leaking"] else "none found"
        lines.append(f"- Leaks between the splits (articles, near-duplicates, answers): {found}")
    seen = {task: counts for task, counts in audit.get("seen", {}).items() if counts.get("test_items")}
    if shares := [f"{task} {percent(counts['seen_share'])} %" for task, counts in seen.items()]:
        lines.append(f"- Test items whose name occurs in train: {', '.join(shares)}")
    return "\n".join(lines)


def render_training(facts: Facts) -> str:
    """LoRA's and training's settings, steps, hardware and time."""
    lora, train, model = facts.settings.lora, facts.settings.train, facts.settings.model
    stage = facts.manifest.get("stages", {}).get("train", {})
    shown = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "effective_batch_size", "optim", "weight_decay", "seed")
    lines = [
        f"- LoRA: rank {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout}, on {', '.join(lora.target_modules)}"
        + (f", in the last {lora.last_layers} layers" if lora.last_layers else ""),
        "- " + ", ".join(f"{name} {getattr(train, name)}" for name in shown),
        "- Loss on the answers only; the prompt is read, not learnt",
    ]
    if model.load_in_4bit:
        lines.append("- Trained over the base in 4 bits (NF4); merged and GGUF files are of the 16-bit base and the adapter")
    if "examples" in stage:
        bare = f" ({stage['negatives']} of texts that name nothing)" if stage.get("negatives") else ""
        lines.append(f"- {stage['examples']} examples{bare}, {stage.get('steps')} steps, best step {stage.get('best_step')}")
    hardware = facts.manifest.get("device")
    seconds = stage.get("training_seconds", stage.get("seconds"))  # the stage's own are those since it was interrupted
    if hardware or seconds:
        time = f", {seconds / 60:.1f} minutes of training" if seconds else ""
        lines.append(f"- Hardware: {hardware or 'not recorded'}{time}")
    versions = ", ".join(f"{name} {version}" for name, version in facts.manifest.get("versions", {}).items())
    return "\n".join([*lines, *([f"- {versions}"] if versions else [])])


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
