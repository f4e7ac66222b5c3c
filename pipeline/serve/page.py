"""`medner serve`: a page to try a model on, and its API; for this machine alone unless a host is given. Needs Gradio.

Each model shown reads the same text. What was found stays with the visitor's session, so that the slider and the choice of a
document ask nothing again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.schema import Document, InputError
from pipeline.extract.extractor import Extractor
from pipeline.extract.formats import write_format
from pipeline.extract.results import Extraction, to_json
from pipeline.extract.texts import read_texts
from pipeline.serve.view import COLOURS, describe, draw_graph, highlight, keep_sure, relation_rows

if TYPE_CHECKING:
    import gradio

MOST_CHARACTERS, MOST_DOCUMENTS, MOST_WAITING = 20_000, 20, 32  # of all texts of a request; of a file; of requests
FILES = {"JSONL": ("jsonl", "jsonl"), "CSV": ("csv", "csv"), "PubTator": ("pubtator", "PubTator")}  # name: (format, ending)
EXAMPLES = (
    "Lithium was given to a man of 54 years. After two weeks he developed tremor and polyuria, which stopped when lithium was "
    "withdrawn.",
    "Two patients who took amiodarone developed hypothyroidism. Levothyroxine was begun, and both recovered.",
    "Cisplatin can cause renal failure and hearing loss. In this trial, hydration before it prevented renal failure.",
)
WARNING = (
    "Not medical advice: it makes mistakes. Nothing that it lists may be used for a patient without a specialist who has read "
    "the text."
)
# Gradio breaks words anywhere, and sets tables in the font of code.
STYLE = ".textfield, .token, .text {word-break: normal; overflow-wrap: anywhere} table {font-family: inherit !important}"
Found = dict[str, list[Extraction]]  # by model's name, an extraction for each document


def read_request(text: str, file: str | None) -> list[Document]:
    """The documents of a text or of an uploaded file. Raises InputError where there is none, or too much."""
    if file and text.strip():
        raise InputError("there is a text and a file: clear one of them")
    if not file and not text.strip():
        raise InputError("there is no text: paste one, or upload a file")
    documents = list(read_texts([file], None)) if file else [Document("text", text.strip())]
    if len(documents) > MOST_DOCUMENTS:
        raise InputError(f"the file has {len(documents)} documents; {MOST_DOCUMENTS} at most here: use medner extract")
    size = sum(len(document.article) for document in documents)
    if size > MOST_CHARACTERS:
        raise InputError(f"{size:,} characters; {MOST_CHARACTERS:,} at most here: use medner extract")
    return documents


def extract_all(models: Mapping[str, Extractor], text: str, file: str | None) -> Found:
    """By model, what it finds in the text and the file. Raises InputError for a file that cannot be read."""
    documents = read_request(text, file)
    return {name: list(extractor(documents)) for name, extractor in models.items()}


def save(found: Sequence[Extraction], name: str) -> str:
    """The extractions as a file to download, its path."""
    kind, ending = FILES[name]
    path = Path(tempfile.mkdtemp(prefix="medner-")) / f"found.{ending}"
    write_format(kind, found, path)
    return str(path)


def build_page(models: Mapping[str, Extractor], title: str) -> gradio.Blocks:
    """The page over these models, by the name that each is shown under; the first is what the API and the downloads give."""
    import gradio

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}\n\n{WARNING}")
        found = gradio.State(None)
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2, min_width=300):
                text, file, button, confidence, kind, saved = build_inputs()
            with gradio.Column(scale=3, min_width=300):
                document = gradio.Dropdown([], label="Document", visible=False, elem_id="document")
                views: list[Any] = []
                with gradio.Row(equal_height=False):
                    for number, name in enumerate(models):
                        with gradio.Column(min_width=280, elem_id=f"model-{number}"):
                            views += build_view(name, alone=len(models) == 1)
        ask, show, write = (partial(work, models) for work in (ask_models, show_found, write_download))
        outputs = {"fn": show, "inputs": [found, document, confidence], "outputs": views, **private}
        to_file = {"fn": write, "inputs": [found, confidence, kind], "outputs": [saved], **private}
        gradio.on([button.click, text.submit], ask, [text, file], [found, document], **private).then(**outputs).then(**to_file)
        confidence.release(**outputs).then(**to_file)
        document.input(**outputs)
        kind.input(**to_file)
        gradio.api(make_api(models), api_name="extract", api_description="Chemicals, diseases and relations of a text.")
    return page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)


def build_inputs() -> tuple[Any, ...]:
    """The left column: text, file, button, slider of confidence, format and download."""
    import gradio

    text = gradio.Textbox(label="Text", lines=9, max_lines=24, elem_id="text", placeholder="An abstract")
    file = gradio.File(label="or a file: text, JSONL, CSV, PubTator, BioC", height=140, elem_id="file")
    button = gradio.Button("Extract", variant="primary", elem_id="extract")
    gradio.Examples([[one] for one in EXAMPLES], inputs=[text], label="Invented examples", api_visibility="private")
    confidence = gradio.Slider(0, 1, 0, step=0.05, label="Leave out what is less sure than", elem_id="confidence")
    with gradio.Row():
        kind = gradio.Dropdown(list(FILES), value="JSONL", label="Format", min_width=120, elem_id="format")
        saved = gradio.DownloadButton("Download", interactive=False, min_width=120, elem_id="download")
    return text, file, button, confidence, kind, saved


def build_view(name: str, alone: bool) -> list[Any]:
    """One model's column: highlighted text, counts, relations, graph."""
    import gradio

    label = "Names found" if alone else name
    text = gradio.HighlightedText(label=label, color_map=COLOURS, show_legend=True, combine_adjacent=False)
    counts = gradio.Markdown()
    table = gradio.Dataframe(
        headers=["chemical", "disease", "sure"], column_widths=["40%", "40%", "20%"], interactive=False, wrap=True,
        label="Relations: the chemical causes or worsens the disease",
    )  # fmt: skip
    return [text, counts, table, gradio.HTML(label="Relations drawn")]


def ask_models(models: Mapping[str, Extractor], text: str, file: str | None) -> tuple[Found | None, Any]:
    """What is found, and the choice of a document; a warning on the page for input that cannot be read."""
    import gradio

    try:
        found = extract_all(models, text, file)
    except InputError as error:
        gradio.Warning(str(error), duration=None, title="Not read")
        return None, gradio.Dropdown(choices=[], value=None, visible=False)
    choices = [(one.id, number) for number, one in enumerate(next(iter(found.values())))]
    return found, gradio.Dropdown(choices=choices, value=0, visible=len(choices) > 1)


def show_found(models: Mapping[str, Extractor], found: Found | None, number: int | None, confidence: float) -> list[Any]:
    """The values of each model's column (`build_view`), for document `number`."""
    shown: list[Any] = []
    for name in models:
        if not found:
            shown += [None, "", [], ""]
            continue
        one = keep_sure(found[name][number or 0], confidence)
        shown += [highlight(one), describe(one), relation_rows(one), draw_graph(one)]
    return shown


def write_download(models: Mapping[str, Extractor], found: Found | None, confidence: float, kind: str) -> Any:
    """The download button over a file of what the first model found in every document."""
    import gradio

    path = save([keep_sure(one, confidence) for one in found[next(iter(models))]], kind) if found else None
    return gradio.DownloadButton(value=path, interactive=bool(found))


def make_api(models: Mapping[str, Extractor]) -> Callable[..., dict]:
    """The function behind the page's API; Gradio shows its docstring there."""
    import gradio

    first = dict(list(models.items())[:1])

    def extract(text: str, min_confidence: float = 0.0) -> dict:
        """Chemicals, diseases and relations of one text: a row as `medner extract` writes it to JSONL.

        Args:
            text: a title, abstract or paragraph, in plain characters.
            min_confidence: leave out what is less sure, 0 to 1.
        """
        try:
            (found,) = extract_all(first, text, None).values()
        except InputError as error:
            raise gradio.Error(str(error)) from None
        return to_json(keep_sure(found[0], min_confidence))

    return extract


def serve_page(page: gradio.Blocks, host: str | None, port: int | None, *, wait: bool = True) -> str:
    """Start the page and return its address; `wait`: until it is interrupted. Nothing is asked of any other machine."""
    import gradio

    system = ["system-ui", "sans-serif"]  # the default theme's fonts come from another machine
    theme = gradio.themes.Default(font=system, font_mono=["ui-monospace", "monospace"])
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    _, address, _ = page.launch(
        server_name=host, server_port=port, theme=theme, css=STYLE, share=False, quiet=True, prevent_thread_lock=True,
        ssr_mode=False, max_file_size="2mb", footer_links=["api"], show_error=False, pwa=False, run_history=False,
    )  # fmt: skip
    if wait:
        print(f"serving on {address} (API: {address}?view=api); Ctrl-C ends it", flush=True)
        page.block_thread()
    return str(address)
