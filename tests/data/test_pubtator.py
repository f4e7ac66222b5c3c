"""PubTator corpora: what is read, what is refused and how, and that what is written reads back the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.prompts import is_name
from data.readers.pubtator import read_pubtator, write_pubtator
from data.schema import Document, InputError, Mention, Relation

SAMPLE = """\
7|t|Zoltamine and gout.
7|a|Gout and renal and hepatic failure followed ZOL in two cases.
7\t0\t9\tZoltamine\tChemical\tMESH:C1
7\t14\t18\tgout\tDisease\tD1
7\t20\t24\tGout\tDisease\tD1
7\t29\t54\trenal and hepatic failure\tDisease\tD2|D3\trenal failure|hepatic failure
7\t64\t67\tZOL\tChemical\tC1
7\t71\t74\ttwo\tSpecies\t9606
7\tCID\tC1\tD3
7\tCID\tMESH:C1\tD1

8|t|Nothing here.
8|a|
8\t0\t7\tNothing\tChemical\t-1
"""
FIRST = Document(
    id="7",
    title="Zoltamine and gout.",
    text="Gout and renal and hepatic failure followed ZOL in two cases.",
    mentions=(
        Mention("Zoltamine", "Chemical", 0, 9, ("C1",)),
        Mention("gout", "Disease", 14, 18, ("D1",)),
        Mention("Gout", "Disease", 20, 24, ("D1",)),
        Mention("renal and hepatic failure", "Disease", 29, 54, ("D2", "D3")),
        Mention("ZOL", "Chemical", 64, 67, ("C1",)),
    ),
    relations=(Relation("Zoltamine", "renal and hepatic failure", "C1", "D3"), Relation("Zoltamine", "gout", "C1", "D1")),
)
SECOND = Document("8", "", "Nothing here.", (Mention("Nothing", "Chemical", 0, 7),))


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "corpus.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_title_offsets_ids_and_relations_are_kept(tmp_path):
    assert read_pubtator(write(tmp_path, SAMPLE)) == [FIRST, SECOND]


@pytest.mark.parametrize(
    "text",
    [
        SAMPLE.replace("\n", "\r\n"),
        "\ufeff" + SAMPLE,
        SAMPLE.replace("\n\n", "\n"),  # a title line is enough to begin a document
        SAMPLE.replace("|t|", "|T|").replace("|a|", "|A|"),
        SAMPLE.rstrip("\n"),
    ],
)
def test_same_documents_from_other_line_ends_and_separators(tmp_path, text):
    assert read_pubtator(write(tmp_path, text)) == [FIRST, SECOND]


def test_offsets_count_the_joint_of_an_empty_title(tmp_path):
    path = write(tmp_path, "1|t|\n1|a|gout\n1\t1\t5\tgout\tDisease\tD1\n")
    assert read_pubtator(path) == [Document("1", "gout", None, (Mention("gout", "Disease", 0, 4, ("D1",)),))]


def test_mentions_without_ids_are_read(tmp_path):
    path = write(tmp_path, "1|t|gout\n1|a|\n1\t0\t4\tgout\tDisease\n")
    assert read_pubtator(path)[0].mentions == (Mention("gout", "Disease", 0, 4),)


HEAD = "1|t|gout after zol\n1|a|More gout.\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "empty"),
        ("\n\n", None, "empty"),
        (HEAD.encode() + b"1\t0\t4\tg\xe9ut\tDisease\tD1", 3, "not UTF-8"),
        (HEAD.encode("utf-16"), 1, "UTF-8"),
        ('{"prompt": "a"}', 1, "not PubTator"),
        ("<collection/>", 1, "not PubTator"),
        ("1\t0\t4\tgout\tDisease\tD1\n" + HEAD, 1, "title line"),
        ("1|t|gout\n\n1\t0\t4\tgout\tDisease\tD1\n", 1, "not followed by its text"),
        ("1|t|gout\n2|a|gout\n", 1, "not followed by its text"),
        ("|t|gout\n|a|gout\n", 1, "without a document id"),
        (HEAD + "1\t0\t4\tzol\tChemical\tC1", 3, "bad offset"),
        (HEAD + "1\t0\t5\tgout\tDisease\tD1", 3, "bad offset"),
        (HEAD + "1\t90\t94\tgout\tDisease\tD1", 3, "outside the article"),
        (HEAD + "1\t4\t4\t\tDisease\tD1", 3, "outside the article"),
        (HEAD + "1\tzero\t4\tgout\tDisease\tD1", 3, "neither a mention nor a relation"),
        (HEAD + "1\t0\t4\tgout", 3, "at least 5 fields"),
        (HEAD + "1\t0\t4\tgout\tdisease\tD1", 3, "unknown type 'disease'"),
        (HEAD + "\nso it goes", 4, "broken line"),
        (HEAD + "2\t0\t4\tgout\tDisease\tD1", 3, "broken line"),
        (HEAD + "1\tCID\tC1\tD1", 3, "no Chemical mention"),
        (HEAD + "1\tCID\tC1", 3, "neither a mention nor a relation"),
        (HEAD + "1\tCID\tC1|C2\tD1", 3, "neither a mention nor a relation"),
        (HEAD + "1\tGAD\tC1\tD1", 3, "neither a mention nor a relation"),
        (HEAD + HEAD, 3, "duplicate document id '1'"),
        ("1|t|go|ut\n1|a|x\n1\t0\t5\tgo|ut\tDisease\tD1", 3, "contain '|'"),
        ("1|t|go|t|ut\n1|a|x\n1\t0\t7\tgo|t|ut\tDisease\tD1", 3, "broken line"),
        ("1|t|gout\n1|a|\n1\t3\t5\tt\n\tDisease\tD1", 3, "at least 5 fields"),
        ("1|t|a b\n1|a|c\n1\t2\t5\tb c\tDisease\tD1", 3, "bad offset"),  # over the joint of title and text
    ],
)
def test_faults_are_one_line_with_file_and_line(tmp_path, text, line, reason):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_pubtator(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder_are_named(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_pubtator(path)


@pytest.mark.parametrize("title", ["Zol and gout", None])
def test_written_documents_read_back_equal(tmp_path, title):
    document = Document("d 1", "α-zol, gout", title, (Mention("α-zol", "Chemical", *place("α-zol", title), ("C1",)),))
    path = tmp_path / "out.txt"
    write_pubtator([document, FIRST], path)
    assert read_pubtator(path) == [document, FIRST]


def place(name: str, title: str | None) -> tuple[int, int]:
    start = len(title) + 1 if title else 0
    return start, start + len(name)


WORD = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="|"), min_size=1, max_size=8)


def is_item_name(text):
    return text.strip() == text and is_name(text)


@settings(max_examples=40)
@given(st.lists(st.tuples(WORD, st.lists(WORD, min_size=1, max_size=5)), max_size=4))
@example([("0", ["NONE"])])
def test_any_document_reads_back_equal(tmp_path_factory, articles):
    documents = []
    for number, (title, words) in enumerate(articles):
        bare = Document(str(number), " ".join(words), title)
        at = len(title) + 1
        mention = Mention(words[0], "Chemical", at, at + len(words[0]), ("C1",))
        documents.append(Document(bare.id, bare.text, title, (mention,) if is_item_name(words[0]) else ()))
    path = tmp_path_factory.mktemp("any") / "any.txt"
    if documents:
        write_pubtator(documents, path)
        assert read_pubtator(path) == documents


def test_line_breaks_in_a_text_move_no_offset(tmp_path):
    document = Document("1", "one\ntwo gout", "T", (Mention("gout", "Disease", 10, 14),))
    write_pubtator([document], tmp_path / "out.txt")
    assert read_pubtator(tmp_path / "out.txt")[0].mentions == document.mentions


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("a|b", "x"), "id"),
        (Document("a\tb", "x"), "id"),
        (Document(" ", "x"), "id"),
        (Document("1", "gout", mentions=(Mention("gout", "Disease"),)), "no offsets"),
        (Document("1", "gout", relations=(Relation("zol", "gout"),)), "no ids"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(document, reason):
    stream = io.StringIO()
    with pytest.raises(InputError, match=reason):
        write_pubtator([document], stream)
    assert not stream.getvalue()


def test_a_corpus_reads_whole(corpus, tmp_path):
    documents = read_pubtator(corpus.pubtator)
    mentions, relations = (sum(len(getattr(d, of)) for d in documents) for of in ("mentions", "relations"))
    assert (len(documents), mentions, relations) in [(8, 74, 14), (500, 9591, 1012)]
    write_pubtator(documents, tmp_path / "out.txt")
    assert read_pubtator(tmp_path / "out.txt") == documents
