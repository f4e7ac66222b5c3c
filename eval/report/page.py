"""One offline page with everything a reviewer asks: report.html, from scored answers and metrics.

The template writes tables and charts; the browser through articles is a script over embedded JSON. The page loads nothing, its
content security policy allows no script or style but its own, and no text of a model or an article becomes markup.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from data.files import write_text
from data.schema import TASKS
from data.table import percent
from eval.report.articles import describe_documents, embed_json
from eval.report.charts import confidence_curves, fault_bars, forest
from eval.report.tables import baseline_f1, bounds_of, build_tables, named_figures, render_markdown, shown_baselines
from eval.scoring.faults import CATEGORIES, Fault
from eval.scoring.logprobs import Confidences
from eval.scoring.score import Scored

__all__ = ["describe_provenance", "embed_report", "render_markdown", "render_report", "write_report"]

SECTIONS = ("scores", "relations", "generalisation", "faults", "confidence")


def write_report(
    path: str | Path, *, scored: Scored, faults: Sequence[Fault], metrics: Mapping,
    confidences: Confidences | None = None, title: str = "Evaluation", notes: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write report.html. `metrics`: metrics.json's object, with the sections that were computed.

    `faults`: what `find_faults` finds in the answers. `confidences`: calibrated, one for each predicted item. `notes`: lines
    for the head, such as model, data and date.
    """
    return write_text(path, render_report(scored, faults, metrics, confidences, title, notes))


def render_report(
    scored: Scored, faults: Sequence[Fault], metrics: Mapping,
    confidences: Confidences | None = None, title: str = "Evaluation", notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """report.html as one string that loads nothing: figures, tables, charts, and every article with its answers.

    `scored`, `faults`, `metrics`: of the same answers. `notes`: what stands under the title, such as what produced them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    pages = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    data = {"documents": describe_documents(scored, faults, confidences), "categories": CATEGORIES}
    page = pages.get_template("report.html").render(
        title=title,
        notes=[f"{len(scored.documents):,} articles", *notes],
        cards=list_cards(metrics),
        sections={name: tables for name in SECTIONS if (tables := build_tables(metrics, [name]))},
        forest=forest(metrics),
        bars=fault_bars(metrics),
        curves=confidence_curves(metrics),
        style=Markup(style),
        style_hash=content_hash(style),
        script=Markup(script),
        script_hash=content_hash(script),
        data=Markup(embed_json(data)),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a character from a broken file becomes "?"


def content_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def list_cards(metrics: Mapping) -> list[dict]:
    """The figures to read first, {"label", "f1", "spread", "beside"}: F1, its interval, and the baselines' F1."""
    cards = []
    for name, figures in named_figures(metrics):
        if name == "macro":
            continue
        bounds = [percent(bound) for bound in bounds_of(metrics, name, "f1") or ()]
        spread = f"95 % interval {' to '.join(bounds)}" if bounds else "no interval: all right or all wrong"
        shown = shown_baselines(metrics).items()
        beside = [f"{words} {percent(f1)}" for key, words in shown if (f1 := baseline_f1(metrics, key, name)) is not None]
        label = name if name in TASKS else "all tasks (micro)"
        gold = f"{figures['support']:,} gold items"
        cards.append({"label": label, "f1": percent(figures["f1"]), "spread": spread, "beside": beside or [gold]})
    return cards


def embed_report(page: str, height: int = 900) -> str:
    """HTML that shows a whole report inside another page, a notebook's, which its style and script cannot reach."""
    return (
        f'<div><iframe srcdoc="{escape(page)}" sandbox="allow-scripts" width="100%" height="{height}" title="Report" '
        'style="border: 0"></iframe></div>'
    )


def describe_provenance(path: Path) -> list[str]:
    """What produced the answers, as lines for the head, from their provenance.json; none where there is no such file."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    named = {"answered through": "engine", "model": "model", "served as": "served", "revision": "revision", "layout": "layout"}
    hashes = {"weights sha256": "sha256", "adapter sha256": "adapter_sha256", "base sha256": "base_sha256"}
    lines = [f"{words} {found[key]}" for words, key in named.items() if found.get(key)]
    for words, key in hashes.items():
        # one hash, or one for each file of a folder's weights
        files = found.get(key) if isinstance(found.get(key), dict) else {"": found.get(key)}
        lines += [f"{words} {digest[:12]}{name and f' ({name})'}" for name, digest in files.items() if digest]
    lines += ["grounded"] if found.get("grounded") else []
    return lines
