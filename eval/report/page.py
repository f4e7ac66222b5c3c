"""One offline page with everything a reviewer asks: report.html, from scored answers and metrics.

Tables and plots are written here; the browser through articles is a script over embedded JSON. The page loads nothing, its
content security policy allows no script or style but its own, and no text of a model or an article becomes markup.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from data.files import write_text
from data.schema import TASKS
from data.table import NONE, Table, percent
from eval.report.articles import describe_documents, embed_json
from eval.report.figures import PLOTS
from eval.report.tables import bounds_of, build_tables, f1_of, named_figures, render_markdown
from eval.scoring.confidence import Confidences
from eval.scoring.faults import CATEGORIES, Fault
from eval.scoring.score import Scored

__all__ = ["render_markdown", "render_report", "write_report"]

SECTIONS = {
    "scores": "Scores",
    "relations": "Relations",
    "generalisation": "Generalisation",
    "faults": "Faults",
    "confidence": "Confidence",
}
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


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
    style, script = read_part("report.css"), read_part("report.js")
    data = {"documents": describe_documents(scored, faults, confidences), "categories": CATEGORIES}
    sections = {name: render_section(name, metrics) for name in SECTIONS}
    parts = {
        "title": escape(title),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in (f"{len(scored.documents):,} articles", *notes)),
        "cards": render_cards(metrics),
        "navigation": "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name, body in sections.items() if body),
        "sections": "".join(sections.values()),
        "style": style,
        "style_hash": content_hash(style),
        "script": script,
        "script_hash": content_hash(script),
        "data": embed_json(data),
    }
    # In one pass, so that a placeholder standing in an article stays text; half a character from a broken file becomes "?".
    page = PLACEHOLDER.sub(lambda match: parts[match[1]], read_part("report.html"))
    return page.encode("utf-8", "replace").decode("utf-8")


def read_part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render_cards(metrics: Mapping) -> str:
    """The four figures to read first: F1 with its interval, and how far it stands over the dictionary."""
    cards = []
    for name, figures in named_figures(metrics):
        if name == "macro":
            continue
        low, high = map(percent, bounds_of(metrics, name, "f1") or (None, None))
        floor = f1_of(metrics, "dictionary", name) if name in TASKS else None
        beside = NONE if floor is None else f"{100 * (figures['f1'] - floor):+.1f} on train's dictionary"
        if name == "micro":
            beside = f"{figures['support']:,} gold items"
        label = name if name in TASKS else "all tasks (micro)"
        cards.append(
            f'<li><h3>{label}</h3><p class="value">{percent(figures["f1"])}<span>F1</span></p>'
            f"<p>95 % interval {low} to {high}</p><p>{beside}</p></li>"
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'


def render_section(name: str, metrics: Mapping) -> str:
    tables = build_tables(metrics, [name])
    if not tables:
        return ""
    plots = PLOTS[name](metrics)
    body = "".join(
        render_table(table, folded=name in ("generalisation", "faults") and len(table.rows) > 10) for table in tables
    )
    return f'<section id="{name}"><h2>{SECTIONS[name]}</h2>{plots}{body}</section>'


def render_table(table: Table, folded: bool) -> str:
    kinds = ["text" if table.holds_words(i) else "number" for i in range(len(table.header))]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(column)}</th>' for kind, column in zip(kinds, table.header, strict=True)
    )
    rows = "".join(render_row(row, kinds) for row in table.rows)
    # A table wider than the screen scrolls by itself; the tab stop lets a keyboard do that.
    body = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f'<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div><p class="note">{escape(table.note)}</p>'
    )
    if folded:
        return f"<details><summary>{escape(table.title)}: the figures</summary>{body}</details>"
    return f"<h3>{escape(table.title)}</h3>{body}"


def render_row(row: Sequence[str], kinds: Sequence[str]) -> str:
    cells = "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds[1:], row[1:], strict=True))
    return f'<tr><th scope="row" class="{kinds[0]}">{escape(row[0])}</th>{cells}</tr>'
