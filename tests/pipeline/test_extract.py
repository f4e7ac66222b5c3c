"""New texts to what is found there: inputs, windows, offsets, each output format read back by its own library, interruption."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_names import ASKED, answer

from data.prompts import LAYOUTS
from data.readers.pubtator import read_pubtator
from data.schema import TASKS, Document, InputError, Mention
from eval.scoring.baselines import learn_dictionary
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.extract.command import extract_to_file
from pipeline.extract.extractor import Asked, Extractor, read_asked, read_gguf_asked
from pipeline.extract.formats import render_text, write_format
from pipeline.extract.results import NOT_ASKED, from_json, to_json
from pipeline.extract.texts import read_texts
from pipeline.extract.windows import cut_windows, split_sentences

CASES = [
    Document("plain", "Lithium caused tremor. The tremor stopped when lithium was stopped.", "A report"),
    Document("unicode", "β-carotene 😀 and Lithium; “renal failure” followed."),
    Document("entities", "Lithium &amp; renal failure <b>twice</b>.\r\nLithium again."),
    Document("nothing", "No patient was seen."),
    Document("formula", "=cmd was given; tremor."),
]


@pytest.fixture
def extractions():
    return list(Extractor(answer, ASKED)(CASES))


def test_every_place_is_exact(extractions):
    assert [one.id for one in extractions] == [case.id for case in CASES]
    for one, case in zip(extractions, CASES, strict=True):
        assert one.text == case.article
        for entity in one.entities:
            assert entity.spans
            for start, end in entity.spans:
                assert one.text[start:end].lower() == entity.name.lower()
            assert entity.sentence and one.text[slice(*entity.spans[0])] in entity.sentence
            assert entity.confidence == pytest.approx(0.9)
    plain = extractions[0]
    assert [(entity.name, len(entity.spans)) for entity in plain.entities] == [("lithium", 2), ("tremor", 2)]
    assert [(one.chemical, one.disease) for one in plain.relations] == [("lithium", "tremor")]
    assert plain.dropped == {"repeated": 3, "not in the text": 1}


def test_names_that_are_nowhere_are_kept_when_asked():
    one = next(Extractor(answer, ASKED, keep_unwritten=True)([CASES[0]]))
    assert [entity.spans for entity in one.chemicals if entity.name == "neverium"] == [()]


def test_what_is_less_sure_is_left_out():
    assert not next(Extractor(answer, ASKED, min_confidence=0.95)([CASES[0]])).entities
    assert next(Extractor(answer, ASKED, min_confidence=0.85)([CASES[0]])).entities


def test_known_names_are_added_where_the_model_listed_none_and_are_told_apart(tmp_path):
    names = (Mention("Tremor", "Disease"), Mention("patient", "Disease"))
    dictionary = learn_dictionary([Document("t", "Tremor of a patient.", mentions=names)])
    first, *_, nothing, _ = Extractor(answer, ASKED, known_names=dictionary)(CASES)
    assert [(entity.name, entity.known_name) for entity in first.entities] == [("lithium", False), ("tremor", False)]
    (added,) = nothing.entities
    assert (added.name, added.type, added.spans, added.confidence) == ("patient", "Disease", ((3, 10),), None)
    assert added.known_name
    assert "patient  (known name)" in render_text(nothing)
    assert from_json(json.loads(json.dumps(to_json(nothing))), "x") == nothing
    write_format("csv", [first, nothing], tmp_path / "found.csv")
    rows = csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text(encoding="utf-8")))
    assert [row["known_name"] for row in rows if row["name"] in ("tremor", "patient")] == ["False", "False", "True"]
    for kind, mark in (("text", "(known name)"), ("bioc-json", '"known_name": "true"'), ("label-studio", '"known name"')):
        write_format(kind, [first, nothing], tmp_path / kind)
        assert (tmp_path / kind).read_text(encoding="utf-8").count(mark) == 1
    write_format("brat", [first, nothing], tmp_path / "brat")
    notes = [(tmp_path / "brat" / f"{one}.ann").read_text(encoding="utf-8") for one in ("plain", "nothing")]
    assert "#" not in notes[0] and notes[1].endswith("#1\tAnnotatorNotes T1\tknown name\n")


def test_what_is_explained_is_where_each_name_stands_and_what_was_left_out(extractions):
    shown = render_text(extractions[0], explain=True).splitlines()
    at = shown.index("    lithium  0.90")
    assert shown[at + 1] == "      stands at 9-16, 56-63: Lithium caused tremor."
    assert shown[-1] == "  left out: 3 repeated, 1 not in the text"
    assert "stands at" not in render_text(extractions[0])
    unsure = next(Extractor(answer, ASKED, min_confidence=0.95)([CASES[0]]))
    assert "3 under the confidence" in render_text(unsure, explain=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_that_learnt_one_task_is_asked_no_other_and_says_so(tmp_path, layout):
    tokens = {"chemicals": 9}
    adapter = tmp_path / "medner.json"
    adapter.write_text(json.dumps({"layout": layout, "max_new_tokens": tokens}), encoding="utf-8")
    keys = {"medner.layout": layout, "medner.max_new_tokens.chemicals": "9"}
    gguf = convert_to_gguf(TINY, tmp_path / "one.gguf", "q8_0", keys)
    assert read_asked(tmp_path) == read_gguf_asked(gguf) == Asked(layout, tokens)
    (found,) = Extractor(answer, read_gguf_asked(gguf))(["Lithium caused tremor."])
    assert [entity.name for entity in found.entities] == ["lithium"] and not found.relations
    assert found.faults == {"diseases": NOT_ASKED, "relations": NOT_ASKED}
    assert "the answer for diseases was not asked for" in render_text(found)


def test_a_text_that_comes_again_is_asked_once():
    asked = []

    def counting(chats):
        asked.extend(chats)
        yield from answer(chats)

    first, other, again = Extractor(counting, ASKED)(["Lithium helped.", "Tremor came.", "Lithium helped."])
    assert (first.id, again.id) == ("text-1", "text-3") and first.entities == again.entities and other.diseases
    assert len(asked) == 2 * len(TASKS)


@given(st.text(alphabet="ab .A\n", max_size=300), st.integers(10, 60))
def test_windows_cover_every_word(text, width):
    windows = cut_windows(text, width, overlap=width // 3)
    assert all(0 <= start < end <= len(text) and end - start <= max(width, 1) for start, end in windows if text)
    covered = {i for start, end in windows for i in range(start, end)}
    assert all(i in covered for i, character in enumerate(text) if not character.isspace())
    assert windows == sorted(windows) and len(set(windows)) == len(windows)


def test_a_long_text_is_read_in_windows_and_put_together():
    filler = " ".join(["Nothing of note happened on that day."] * 30)
    text = f"Lithium was given. {filler} Renal failure followed. {filler} Lithium again."
    one = next(Extractor(answer, ASKED, window=500, overlap=80)([text]))
    assert one.windows > 4
    assert [(entity.name, len(entity.spans)) for entity in one.entities] == [("lithium", 2), ("renal failure", 1)]


def test_sentences():
    text = 'Lithium (0.5 mg) helped. "Tremor" came!\nNew line'
    sentences = [text[start:end] for start, end in split_sentences(text)]
    assert sentences == ["Lithium (0.5 mg) helped.", '"Tremor" came!', "New line"]


def texts_of(*sources, stdin=""):
    return [(one.id, one.article) for one in read_texts(list(map(str, sources)), io.StringIO(stdin))]


def test_what_can_be_read(tmp_path):
    (tmp_path / "note.txt").write_text("Lithium helped.\n")
    (tmp_path / "rows.jsonl").write_text('{"id": 7, "title": "T", "text": "Body."}\n{"abstract": "Two."}\n')
    (tmp_path / "table.csv").write_text('pmid,text\n12,"One, two"\n')
    (tmp_path / "corpus.txt").write_text("5|t|Title\n5|a|Abstract of it.\n5\t0\t5\tTitle\tChemical\tD1\n")
    assert texts_of("Lithium caused tremor.") == [("text", "Lithium caused tremor.")]
    assert texts_of("One text.", "Another one.") == [("text-1", "One text."), ("text-2", "Another one.")]
    assert texts_of("-", stdin="From a pipe.\n") == [("stdin", "From a pipe.")]
    assert texts_of(tmp_path / "note.txt") == [("note", "Lithium helped.")]
    assert texts_of(tmp_path / "rows.jsonl") == [("7", "T\nBody."), ("rows-2", "Two.")]
    assert texts_of(tmp_path / "table.csv") == [("12", "One, two")]
    assert texts_of(tmp_path / "corpus.txt") == [("5", "Title\nAbstract of it.")]
    assert [name for name, _ in texts_of(tmp_path)] == ["5", "note", "7", "rows-2", "12"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "no such file"),
        ("no-such-word", None, "no such file"),
        ("rows.jsonl", '{"text": "a b"}\n{"id": 3}\n', "rows.jsonl:2: no text"),
        ("rows.jsonl", '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "'1' is there twice"),
        ("rows.jsonl", '{"id": 1, "text": " "}\n', "no text"),
        ("table.csv", "name,value\na,b\n", "table.csv:2: no text"),
        ("table.csv", 'text\n"a\n', "not a row of this table"),
        ("passages.json", '{"documents": [1]}', "not a BioC collection"),
        ("table.parquet", "no parquet", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        texts_of(tmp_path / name if content is not None else name)


def test_pubtator_and_jsonl_and_csv_and_parquet_are_read_back(extractions, tmp_path):
    from pyarrow.parquet import read_table

    for kind in ("pubtator", "jsonl", "csv", "parquet"):
        write_format(kind, extractions, tmp_path / kind)
    for document, one in zip(read_pubtator(tmp_path / "pubtator"), extractions, strict=True):
        spans = sorted((span, entity.type) for entity in one.entities for span in entity.spans)
        assert sorted(((mention.start, mention.end), mention.type) for mention in document.mentions) == spans
    lines = (tmp_path / "jsonl").read_text(encoding="utf-8").splitlines()
    assert [from_json(json.loads(line), "x") for line in lines] == extractions
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text(encoding="utf-8"))))
    assert len(rows) == read_table(tmp_path / "parquet").num_rows > 10
    assert "'=cmd" in {row["name"] for row in rows} and not any(row["name"].startswith("=") for row in rows)


def test_bioc_is_read_back_by_its_library(extractions, tmp_path):
    from bioc import biocjson, biocxml

    for kind, library in (("bioc-xml", biocxml), ("bioc-json", biocjson)):
        write_format(kind, extractions, tmp_path / kind)
        with (tmp_path / kind).open(encoding="utf-8", newline="") as file:
            collection = library.load(file)
        for document, one in zip(collection.documents, extractions, strict=True):
            passage = document.passages[0]
            assert passage.text == one.text
            places = [[(spot.offset, spot.offset + spot.length) for spot in note.locations] for note in passage.annotations]
            assert places == [list(entity.spans) for entity in one.entities]
            assert len(passage.relations) == len(one.relations)


@pytest.mark.slow
def test_spacy_reads_its_docbin_back(extractions, tmp_path):
    import spacy

    write_format("spacy", extractions, tmp_path / "docs.spacy")
    language = spacy.blank("en")
    docs = list(spacy.tokens.DocBin().from_disk(tmp_path / "docs.spacy").get_docs(language.vocab))
    for doc, one in zip(docs, extractions, strict=True):
        assert doc.text == one.text and doc.user_data["id"] == one.id
        spans = sorted((*span, entity.type) for entity in one.entities for span in entity.spans)
        assert sorted((span.start_char, span.end_char, span.label_) for span in doc.spans["entities"]) == spans


def test_brat_and_label_studio(extractions, tmp_path):
    write_format("brat", extractions, tmp_path / "brat")
    write_format("label-studio", extractions, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    for one, task in zip(extractions, tasks, strict=True):
        with (tmp_path / "brat" / f"{one.id}.txt").open(encoding="utf-8", newline="") as file:
            text = file.read()
        notes = (tmp_path / "brat" / f"{one.id}.ann").read_text(encoding="utf-8").splitlines()
        places = [line.split("\t")[1].split()[1:] for line in notes if line.startswith("T")]
        named = [one.text[start:end] for entity in one.entities for start, end in entity.spans]
        assert [text[int(start) : int(end)] for start, end in places] == named
        regions = [region["value"] for region in task["predictions"][0]["result"] if region["type"] == "labels"]
        assert [one.text[value["start"] : value["end"]] for value in regions] == named == [value["text"] for value in regions]


def test_a_terminal_gets_no_control_characters():
    text = "Lithium\x1b[31m caused tremor\u202e."
    assert "\x1b" not in (shown := render_text(next(Extractor(answer, ASKED)([text])), explain=True)) and "\u202e" not in shown


def test_an_id_cannot_leave_the_folder(tmp_path):
    evil = Document("../../evil", "Lithium."), Document("..//../evil", "Tremor.")
    write_format("brat", list(Extractor(answer, ASKED)(evil)), tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 4 and not (tmp_path.parent / "evil.txt").exists()


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_interrupted_job_goes_on_and_gives_the_same_bytes(tmp_path, kind):
    documents = [Document(f"d{n}", f"Lithium {n} caused tremor.") for n in range(20)]
    facts = {"model": "m"}

    def failing(chats):
        for number, rows in enumerate(answer(chats)):
            if chats[number].document.id.startswith("d9"):
                raise KeyboardInterrupt
            yield rows

    extract_to_file(Extractor(answer, ASKED), iter(documents), tmp_path / f"whole.{kind}", kind, facts)
    out = tmp_path / f"cut.{kind}"
    with pytest.raises(KeyboardInterrupt):
        extract_to_file(Extractor(failing, ASKED), iter(documents), out, kind, facts)
    rows = out if kind == "jsonl" else out.with_name(out.name + ".partial.jsonl")
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"id": "d9", "tex')  # killed while it wrote
    with pytest.raises(InputError, match="begun with another model"):
        extract_to_file(Extractor(answer, ASKED), iter(documents), out, kind, {"model": "other"})
    facts |= {"known_names": None}  # an option that came since is no other job
    counts = extract_to_file(Extractor(answer, ASKED), iter(documents), out, kind, facts)
    assert counts["documents"] == 20 and counts["kept from before"] >= 4
    assert out.read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        extract_to_file(Extractor(answer, ASKED), iter(documents), out, kind, facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"cut.{kind}", f"whole.{kind}"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Lithium helped.", "--model", "nowhere"], "no such file or folder"),
        (["Lithium helped.", "--model", "http://127.0.0.1:9"], "give --like or --layout"),
        (["Lithium helped.", "--model", ".", "--min-confidence", "1.5"], "--min-confidence 1.5"),
        (["Lithium helped.", "--model", ".", "--window", "10"], "longer than its overlap"),
        (["missing.txt", "--model", "."], "missing.txt: no such file"),
        (["Lithium helped.", "--model", "tests", "--keep-unwritten"], "only with --plain"),
        (["Lithium helped.", "--model", "tests", "--out", "x.unknown"], "say the format with --to"),
        (["Lithium helped.", "--model", "tests", "--out", "x.txt", "--explain"], "--explain: only for what is printed"),
        (["Lithium helped.", "--model", "tests"], "no medner.json"),
        (["Lithium helped.", "--model", "tests", "--known-names", "tests"], "--known-names tests: no such file"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(arguments, said, capsys):
    assert main(["extract", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and len(error) == 1
