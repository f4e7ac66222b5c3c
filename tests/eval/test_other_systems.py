"""Predictions of any system: every format gives the same items, and faults are named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.prompts import render_answer, render_prompt
from data.readers.pubtator import read_pubtator, write_pubtator
from data.readers.rows import render_rows
from data.schema import Document, InputError, Mention, Relation
from eval.official.other_systems import read_other_system

DOCUMENTS = (
    Document(
        "1",
        "Zoltamine, (+)-zol gave gout.",
        "Zol and gout",
        (
            Mention("Zol", "Chemical", 0, 3, ("C1",)),
            Mention("gout", "Disease", 8, 12, ("D1",)),
            Mention("Zoltamine", "Chemical", 13, 22, ("C1",)),
        ),
        (Relation("Zol", "gout", "C1", "D1"),),
    ),
    Document("2", "Nothing of the kind.", "A title"),
)
EXPECTED = {
    "1": {"chemicals": ("Zol", "Zoltamine"), "diseases": ("gout",), "relations": (("Zol", "gout"),)},
    "2": {"chemicals": (), "diseases": (), "relations": ()},
}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "predictions"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(*objects: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects)


def predicted_rows(key: str) -> str:
    value = {"items": list, "completion": render_answer}[key]
    return rows(*({"document": d, "task": t, key: value(i)} for d, tasks in EXPECTED.items() for t, i in tasks.items()))


BIOC = """<collection><document><id>1</id><passage><offset>0</offset><text>Zol and gout</text>
<annotation><infon key="type">Chemical</infon><infon key="MESH">C1</infon><location offset="13" length="9"/>
<text>Zoltamine</text></annotation>
<annotation><infon key="type">Chemical</infon><infon key="MESH">C1</infon><location offset="0" length="3"/>
<text>Zol</text></annotation>
<annotation><infon key="type">Disease</infon><infon key="MESH">D1</infon><location offset="8" length="4"/>
<text>gout</text></annotation></passage>
<relation><infon key="relation">CID</infon><infon key="Chemical">C1</infon><infon key="Disease">D1</infon></relation>
</document><document><id>2</id></document></collection>"""
CSV = "document,task,item\n1,chemicals,Zol\n1,diseases,gout\n1,chemicals,Zoltamine\n1,relations,Zol | gout\n"
CSV += "2,chemicals,\n2,diseases,\n2,relations,\n"
COLUMNS = "Task;Document;Chemical;Disease\nchemicals;1;Zol;\nchemicals;1;Zoltamine;\nDiseases;1;;gout\nrelations;1;Zol;gout\n"
COLUMNS += "chemicals;2;;\ndiseases;2;;\nrelations;2;;\n"


def read_items(path: Path) -> dict[str, dict[str, tuple]]:
    found: dict[str, dict[str, tuple]] = {}
    for (document, task), answer in read_other_system(path, DOCUMENTS).items():
        found.setdefault(document, {})[task] = answer.items
    return found


def pubtator(folder: Path) -> str:
    write_pubtator(DOCUMENTS, folder / "gold")
    return (folder / "gold").read_text()


@pytest.mark.parametrize(
    "text",
    [
        render_rows(DOCUMENTS),
        predicted_rows("items"),
        predicted_rows("completion"),
        BIOC,
        CSV,
        CSV.replace("\n", "\r\n"),
        "\n\ufeff".strip("\n") + CSV,
        CSV.replace(",", "\t"),
        COLUMNS,
        pubtator,
    ],
)
def test_every_format_gives_the_same_items(tmp_path, text):
    assert read_items(write(tmp_path, text if isinstance(text, str) else text(tmp_path))) == EXPECTED


@pytest.mark.parametrize("article", [DOCUMENTS[0].text, DOCUMENTS[0].article, DOCUMENTS[0].text.upper()])
def test_rows_without_a_document_are_matched_by_article(tmp_path, article):
    row = {"prompt": render_prompt(article, "diseases"), "completion": "- gout"}
    assert read_items(write(tmp_path, rows(row))) == {"1": {"diseases": ("gout",)}}


@pytest.mark.parametrize(
    ("completion", "finish", "items"),
    [
        ("- Zol", "stop", ("Zol",)),
        ("-", "stop", ()),
        ("Sure! Here they are.", "stop", ()),  # malformed: predicts nothing
        ("- Zol\n- Zolt", "length", ("Zol",)),  # cut off: its last line is not finished
    ],
)
def test_answers_are_read_as_our_own(tmp_path, completion, finish, items):
    row = {"document": "1", "task": "chemicals", "completion": completion, "finish": finish}
    assert read_items(write(tmp_path, rows(row))) == {"1": {"chemicals": items}}


def test_names_may_hold_what_csv_must_quote(tmp_path):
    text = 'document,task,item\n1,chemicals,"1,2-zol, ""pure"""\n'
    assert read_items(write(tmp_path, text)) == {"1": {"chemicals": ('1,2-zol, "pure"',)}}


def test_a_task_that_the_file_never_answers_has_no_entry(tmp_path):
    text = "1|t|Zol and gout\n1|a|\n1\t8\t12\tgout\tDisease\n2|t|A\n2|a|B\n"
    assert read_items(write(tmp_path, text)) == {"1": {"diseases": ("gout",)}, "2": {"diseases": ()}}


def test_relations_without_mentions_are_named_from_gold_or_by_their_id(tmp_path):
    text = "1\tCID\tMESH:C1\tD1\n1\tCID\tC1\tD9\n"
    expected = {"1": {"relations": (("Zol", "gout"), ("Zol", "MESH:D9"))}}
    assert read_items(write(tmp_path, text)) == expected


ROW = {"document": "1", "task": "chemicals", "items": ["Zol"]}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", "", "empty"),
        (b"document,task,item\n1,chemicals,z\xe9l\n", ":2", "not UTF-8"),
        ("Here are the chemicals: Zol\n", ":1", "none of JSON Lines"),
        ("name,value\n1,2\n", ":1", "none of JSON Lines"),
        (rows(ROW) + "{broken\n", ":2", "broken JSON"),
        (rows(ROW) + "[1]\n", ":2", "JSON object"),
        (rows(ROW | {"document": "9"}), ":1", "document '9' is none of the 2"),
        (rows(ROW | {"document": 1}), ":1", 'expected "document"'),
        (rows(ROW | {"task": "genes"}), ":1", 'expected "document"'),
        (rows(ROW | {"items": "Zol"}), ":1", "must be a list"),
        (rows(ROW | {"items": [1]}), ":1", "not a name"),
        (rows(ROW | {"items": ["a|b"]}), ":1", "contain '|'"),
        (rows(ROW | {"items": ["a\nb"]}), ":1", "line break"),
        (rows(ROW | {"task": "relations", "items": [["a"]]}), ":1", "pair"),
        (rows({"document": "1", "task": "chemicals"}), ":1", '"completion" must be a string'),
        (rows(ROW, ROW, ROW | {"items": []}), ":3", "another answer stands at"),
        (rows({"prompt": "Hello", "completion": "- a"}), ":1", "unknown prompt"),
        (rows({"prompt": render_prompt("Unknown.", "diseases"), "completion": "-"}), ":1", "none of the 2 documents"),
        ("document,task,item\n9,chemicals,Zol\n", ":2", "document '9'"),
        ("document,task,item\n1,chemicals,Zol\n1,genes,Zol\n", ":3", "task 'genes'"),
        ("document,task,item\n1,chemicals\n", ":2", "fewer fields"),
        ("document,task,item\n1,chemicals,Zol,really\n", ":2", "more fields"),
        ("document,task,item\n1,relations,Zol\n", ":2", "pair"),
        ("document,task,chemical,disease\n1,relations,Zol,\n", ":2", "may not be empty"),
        ("document,task,score\n1,chemicals,1\n", ":1", "none of JSON Lines"),
        ("document,task,chemical\n1,diseases,gout\n", ":2", "no column"),
        ('document,task,item\n1,chemicals,"Zol\n', ":2", "broken CSV"),
        ('document,task,item\n1,chemicals,"Zol"x\n', ":2", "broken CSV"),
        ("1|t|Zol\n1|a|Zol\n9|t|Zol\n9|a|Zol\n9\t0\t3\tZol\tChemical\n", ":3", "document '9'"),
        (BIOC.replace("<id>2<", "<id>9<"), ": document '9'", "none of the 2"),
        (BIOC[:-20], ":9", "broken XML"),
    ],
)
def test_faults_are_one_line_with_file_and_line(tmp_path, text, place, reason):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_other_system(path, DOCUMENTS)
    assert str(error.value).startswith(f"{path}{place}: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_corpus_predicts_itself(corpus):
    documents = read_pubtator(corpus.pubtator)
    for path in (corpus.pubtator, corpus.bioc):
        predicted = read_other_system(path, documents)
        assert all(set(predicted[d.id, task].items) == set(d.gold(task)) for d in documents for task in d.tasks)
