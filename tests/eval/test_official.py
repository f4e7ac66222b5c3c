"""Official scores: hand-counted cases, a second and naive implementation, the official example."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.schema import InputError
from eval.official.biocreative import render_official, score_official

FILES = Path(__file__).parents[1] / "files"
HEAD = "1|t|Gout after zoltamine\n1|a|Zoltamine and gout.\n"
GOLD = HEAD + "1\t0\t4\tGout\tDisease\tD1\n1\t11\t20\tzoltamine\tChemical\tC1\n1\tCID\tC1\tD1\n"


def score(folder: Path, gold: str | bytes, predicted: str | bytes) -> dict:
    for name, text in (("gold", gold), ("predicted", predicted)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return score_official(folder / "gold", folder / "predicted")


def counts(row: dict) -> tuple[int, int, int]:
    return row["tp"], row["fp"], row["fn"]


@pytest.mark.parametrize(
    ("lines", "mention", "identity", "relation", "ignored"),
    [
        # gold has one disease, one chemical, one relation; columns are (tp, fp, fn) of both types together
        (["1\t0\t4\tGout\tDisease\tD1"], (1, 0, 1), (1, 0, 1), (0, 0, 1), {}),
        (["1\t0\t4\tGout\tDisease\tMESH:D1\t0.93"], (1, 0, 1), (1, 0, 1), (0, 0, 1), {}),  # a score in the seventh field
        (["1\t0\t4\tGout\tDisease"], (1, 0, 1), (0, 0, 2), (0, 0, 1), {"without_id": 1}),
        (["1\t0\t4\tGout\tDisease\t-1"], (1, 0, 1), (0, 0, 2), (0, 0, 1), {"without_id": 1}),
        (["1\t0\t4\tGout\tDisease\tD1|D2"], (1, 0, 1), (1, 1, 1), (0, 0, 1), {}),
        (["1\t0\t4\tGout\tDisease\tD1+D2"], (1, 0, 1), (0, 1, 2), (0, 0, 1), {}),  # only | separates ids
        (["1\t0\t4\tGout\tDisease\tmesh:D1"], (1, 0, 1), (0, 1, 2), (0, 0, 1), {}),
        (["1\t0\t4\tGout\tDisease\tOMIM:D1"], (1, 0, 1), (0, 1, 2), (0, 0, 1), {}),
        (["1\t0\t4\tGout\tChemical\tD1"], (0, 1, 2), (0, 1, 2), (0, 0, 1), {}),
        (["1\t0\t4\tGout\tdisease\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"other_type": 1}),
        (["1\t00\t04\tGout\tDisease\tD1"], (1, 0, 1), (1, 0, 1), (0, 0, 1), {}),
        (["1\t1\t5\tGout\tDisease\tD1"], (0, 1, 2), (1, 0, 1), (0, 0, 1), {}),  # off by one: a wrong mention, a right id
        (["1\t0\t4\twhatever\tDisease\tD1"], (1, 0, 1), (1, 0, 1), (0, 0, 1), {}),  # the name itself is never read
        (["1\t4\t0\tGout\tDisease\tD1"], (0, 1, 2), (1, 0, 1), (0, 0, 1), {}),
        (["1\t900\t904\tGout\tDisease\tD1"], (0, 1, 2), (1, 0, 1), (0, 0, 1), {}),
        (["1\t-1\t4\tGout\tDisease\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"bad_offset": 1}),
        (["1\tx\t4\tGout\tDisease\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"bad_offset": 1}),
        (["1\t0\t4\tGout\tDisease\tD1"] * 3, (1, 0, 1), (1, 0, 1), (0, 0, 1), {"duplicate": 2}),
        (["1\t0\t4\tGout\tDisease\tD1", "1\t0\t20\tGout after zoltamine\tDisease\tD1"], (1, 1, 1), (1, 0, 1), (0, 0, 1), {}),
        (["9\t0\t4\tGout\tDisease\tD1", "9\tCID\tC1\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"unknown_document": 2}),
        (["1\t0\t4\tx|t|y\tDisease\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"holds_a_marker": 1}),
        (["1\t0\t4\tGout", "what?"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"broken_line": 2}),
        (["1\tCID\tMESH:C1\tD1\t0.9"], (0, 0, 2), (0, 0, 2), (1, 0, 0), {}),
        (["1\tCID\tD1\tC1", "1\tCID\tC1\t-1"], (0, 0, 2), (0, 0, 2), (0, 2, 1), {}),  # an id that is none still counts
        (["1\tCID\tC1\tD1", "1\tCID\tC1\tD1"], (0, 0, 2), (0, 0, 2), (1, 0, 0), {"duplicate": 1}),
        (["1\tGAD\tC1\tD1"], (0, 0, 2), (0, 0, 2), (0, 0, 1), {"broken_line": 1}),
        ([], (0, 0, 2), (0, 0, 2), (0, 0, 1), {}),
    ],
)
def test_counts_are_those_of_the_official_program(tmp_path, lines, mention, identity, relation, ignored):
    figures = score(tmp_path, GOLD, HEAD + "\n".join(lines))
    assert counts(figures["mention"]["both"]) == mention
    assert counts(figures["id"]["both"]) == identity
    assert counts(figures["relation"]["CID"]) == relation
    assert {name: n for name, n in figures["ignored"].items() if n} == ignored


def test_predictions_are_looked_at_only_where_gold_has_something_of_the_type(tmp_path):
    gold = GOLD + "2|t|Zoltamine\n2|a|Gout\n2\t0\t9\tZoltamine\tChemical\tC1\n"
    figures = score(tmp_path, gold, HEAD + "2\t10\t14\tGout\tDisease\tD1\n2\tCID\tC1\tD1\n")
    assert counts(figures["mention"]["Disease"]) == (0, 0, 1)  # document 2 has no gold disease
    assert counts(figures["mention"]["both"]) == (0, 1, 3)  # but it has a gold chemical
    assert counts(figures["relation"]["CID"]) == (0, 0, 1)
    assert figures["ignored"]["document_without_gold"] == 2


def test_what_is_likely_a_mistake_in_the_file_is_counted(tmp_path):
    figures = score(tmp_path, GOLD, HEAD + "1\t1\t5\tGout\tDisease\tCHEBI:1\n1\t11\t20\tzoltamine\tChemical\tC1\n")
    assert figures["warnings"] == {"foreign_id": 1, "text_differs": 1}


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\r"), lambda t: "\ufeff" + t])
def test_line_ends_do_not_matter(tmp_path, change):
    figures = score(tmp_path, GOLD, change(GOLD))
    assert [counts(figures[key]["both"]) for key in ("mention", "id")] == [(2, 0, 0)] * 2
    assert counts(figures["relation"]["CID"]) == (1, 0, 0)


def test_bytes_that_are_not_utf8_cost_only_their_line(tmp_path):
    assert counts(score(tmp_path, GOLD, GOLD.encode() + b"1\t0\t4\tg\xe9ut\tDisease\tD\xe9")["id"]["Disease"]) == (1, 1, 0)


PART = "IndividualMention"
BIOC = """<!DOCTYPE collection SYSTEM 'BioC.dtd'><collection><document><id>1</id><passage><offset>0</offset><text>Gout after
 zoltamine</text>{}</passage><relation><infon key="relation">CID</infon><infon key="Chemical">C1</infon>
<infon key="Disease">D1</infon></relation></document></collection>"""


def annotation(kind: str, ids: str, *places: tuple[object, object], role: str = "", key: str = "MESH") -> str:
    infons = f'<infon key="type">{kind}</infon><infon key="{key}">{ids}</infon>'
    infons += f'<infon key="CompositeRole">{role}</infon>' if role else ""
    locations = "".join(f'<location offset="{offset}" length="{length}"/>' for offset, length in places)
    return f"<annotation>{infons}{locations}</annotation>"


@pytest.mark.parametrize(
    ("annotations", "mention", "identity", "ignored"),
    [
        ([annotation("Disease", "D1", (0, 4))], (1, 0, 0), (1, 0, 0), {}),
        ([annotation("Disease", "D1", (0, 4), key="OMIM")], (1, 0, 0), (1, 0, 0), {}),
        ([annotation("Disease", "D1", (0, 4), key="CHEBI")], (1, 0, 0), (0, 0, 1), {"without_id": 1}),
        ([annotation("Disease", "D1", (0, 4), role="CompositeMention")], (1, 0, 0), (1, 0, 0), {}),
        ([annotation("Disease", "D1", (0, 4), role=PART)], (0, 0, 1), (1, 0, 0), {"part_of_composite": 1}),
        ([annotation("Disease", "D1", (0, 4), (9, 1), role=PART)], (0, 0, 1), (1, 0, 0), {"part_of_composite": 1}),
        ([annotation("Disease", "D1", (0, 4), (9, 1))], (0, 0, 1), (1, 0, 0), {"several_locations": 1}),
        ([annotation("Disease", "D1")], (0, 0, 1), (0, 0, 1), {"bad_offset": 1}),
        ([annotation("Disease", "D1", ("x", 4))], (0, 0, 1), (0, 0, 1), {"bad_offset": 1}),
        ([annotation("Disease", "D1", (-4, 8))], (0, 1, 1), (1, 0, 0), {}),
        ([annotation("Gene", "D1", (0, 4))], (0, 0, 1), (0, 0, 1), {"other_type": 1}),
        ([annotation("Disease", "<![CDATA[D1]]>", (0, 4))], (1, 0, 0), (0, 0, 1), {"without_id": 1, "cdata": 1}),
        (
            ["<sentence>" + annotation("Disease", "D1", (0, 4)) + "</sentence>"],
            (0, 0, 1),
            (0, 0, 1),
            {"in_sentence_or_passage": 1},
        ),
    ],
)
def test_bioc_counts_are_those_of_the_official_program(tmp_path, annotations, mention, identity, ignored):
    figures = score(tmp_path, GOLD, BIOC.format("".join(annotations)))
    assert counts(figures["mention"]["Disease"]) == mention
    assert counts(figures["id"]["Disease"]) == identity
    assert counts(figures["relation"]["CID"]) == (1, 0, 0)
    assert {name: n for name, n in figures["ignored"].items() if n} == ignored


@pytest.mark.parametrize(
    ("raw", "place", "reason"),
    [
        (b"", "", "empty"),
        (b" \n", "", "empty"),
        (b'{"document": "1"}', ":1", "neither PubTator"),
        (b"document\ttask\titem\n1\tdiseases\tgout\n", ":1", "neither PubTator"),
        (GOLD.encode("utf-16"), ":1", "NUL byte"),
        (b"<html></html>", ":1", "not BioC"),
        (b"<collection></collection>", "", "without a <document>"),
        (BIOC.format("").encode()[:-40], ":3", "broken XML"),
        (b'<!DOCTYPE collection [<!ENTITY a "b">]><collection/>', ":1", "entity 'a'"),
    ],
)
@pytest.mark.parametrize("side", ["gold", "predicted"])
def test_what_is_neither_format_is_an_error_and_not_a_zero(tmp_path, raw, place, reason, side):
    with pytest.raises(InputError, match=reason) as error:
        score(tmp_path, *((raw, GOLD) if side == "gold" else (GOLD, raw)))
    assert str(error.value).startswith(f"{tmp_path / side}{place}: ")


def test_missing_file_and_folder_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            score_official(path, path)


NAIVE_TYPES = {"Chemical": ["Chemical"], "Disease": ["Disease"], "both": ["Chemical", "Disease"]}


def naive_annotations(text: str, evaluation: str, types: list[str]) -> list[str]:
    """What a PubTator file says, one string an annotation, in the simplest way that comes to mind."""
    said = []
    for line in text.split("\n"):
        fields = line.strip().split("\t")
        if "|t|" in line or "|a|" in line or len(fields) < 4:
            continue
        if fields[1].isdigit() and fields[2].isdigit():
            if evaluation == "mention" and fields[4] in types:
                said.append(f"{fields[0]} {int(fields[1])} {int(fields[2])} {fields[4]}")
            if evaluation == "id" and fields[4] in types and len(fields) > 5:
                parts = [part for part in fields[5].strip().split("|") if part not in ("", "-1")]
                said += [f"{fields[0]} {fields[4]} {part if ':' in part else 'MESH:' + part}" for part in parts]
        elif evaluation == "relation" and fields[1] == "CID":
            ends = ["null" if part in ("", "-1") else part if ":" in part else "MESH:" + part for part in fields[2:4]]
            said.append(f"{fields[0]} CID {ends[0]} {ends[1]}")
    return said


def naive_score(gold: str, predicted: str, evaluation: str, types: list[str]) -> tuple[int, int, int]:
    wanted, said = [], []
    for one in naive_annotations(gold, evaluation, types):
        if one not in wanted:
            wanted.append(one)
    for one in naive_annotations(predicted, evaluation, types):
        if one not in said and any(other.split()[0] == one.split()[0] for other in wanted):
            said.append(one)
    right = [one for one in said if one in wanted]
    return len(right), len(said) - len(right), len(wanted) - len(right)


def check_against_naive(gold: str, predicted: str, figures: dict) -> None:
    for evaluation in ("mention", "id"):
        for name, types in NAIVE_TYPES.items():
            assert counts(figures[evaluation][name]) == naive_score(gold, predicted, evaluation, types), (evaluation, name)
    assert counts(figures["relation"]["CID"]) == naive_score(gold, predicted, "relation", [])


DOCUMENT = st.sampled_from(["1", "2", "x"])
OFFSET = st.sampled_from(["0", "1", "2", "02", "7", "-1", "y", "3.0"])
ID = st.sampled_from(["D1", "D2", "MESH:D1", "mesh:D1", "CHEBI:1", "OMIM:1", "-1", "", "D1|D2", "D2|-1", "|D1", "D1+D2"])
KIND = st.sampled_from(["Chemical", "Disease", "Chemical", "Disease", "Gene", "disease"])
TEXT = st.sampled_from(["zol", "renal failure", "a|b", "x|t|y"])
MENTION = st.tuples(DOCUMENT, OFFSET, OFFSET, TEXT, KIND) | st.tuples(DOCUMENT, OFFSET, OFFSET, TEXT, KIND, ID)
SCORED = st.tuples(DOCUMENT, OFFSET, OFFSET, TEXT, KIND, ID, st.just("0.5"))
CLAIMED = st.tuples(DOCUMENT, st.sampled_from(["CID", "CID", "cid"]), ID, ID, st.just("0.5"))
FILE = st.lists(MENTION | SCORED | CLAIMED, max_size=14).map(lambda rows: HEAD + "\n".join("\t".join(row) for row in rows))


@settings(max_examples=100, deadline=None)
@given(FILE, FILE)
def test_any_file_scores_as_the_naive_implementation_says(tmp_path_factory, gold, predicted):
    check_against_naive(gold, predicted, score(tmp_path_factory.mktemp("any"), gold, predicted))


@settings(max_examples=25, deadline=None)
@given(FILE, st.randoms())
def test_order_is_irrelevant_and_gold_against_itself_is_perfect(tmp_path_factory, gold, random):
    folder = tmp_path_factory.mktemp("any")
    shuffled = gold.split("\n")
    random.shuffle(shuffled)
    for evaluation in ("mention", "id", "relation"):
        for row in score(folder, gold, "\n".join(shuffled))[evaluation].values():
            assert (row["fp"], row["fn"]) == (0, 0)
            assert row["f1"] == (1.0 if row["tp"] else 0.0)


def test_the_table_shows_every_evaluation_and_what_was_not_counted(tmp_path):
    table = render_official(score(tmp_path, GOLD, GOLD + "1\t0\t4\tGout\tDisease\tD1\n9\tCID\tC1\tD1\n"))
    rows = [line.split() for line in table.splitlines()]
    assert ["mention", "both", "2", "0", "0", "1.0000", "1.0000", "1.0000"] in rows
    assert ["relation", "CID", "1", "0", "0", "1.0000", "1.0000", "1.0000"] in rows
    assert "  1 in documents that gold does not have" in table
    assert "  1 said twice, counted once" in table
    assert "Not looked at in gold" not in table


def test_the_official_example_gives_the_programs_counts(shared_data):
    gold = shared_data / "cdr_sample.gold.PubTator"
    names = score_official(gold, shared_data / "cdr_sample.pred.DNER.PubTator")
    assert counts(names["mention"]["Disease"]) == (303, 105, 121)
    assert counts(names["id"]["Disease"]) == (149, 57, 65)
    relations = score_official(gold, shared_data / "cdr_sample.pred.CID.PubTator")["relation"]["CID"]
    assert counts(relations) == (90, 533, 33)
    assert [round(relations[key], 4) for key in ("precision", "recall", "f1")] == [0.1445, 0.7317, 0.2413]


def test_an_invented_example_in_the_official_ones_form_gives_its_counts_by_hand():
    """Per article, (tp, fp, fn): names 3 1 3, 3 0 3, 0 0 2, 6 0 0, 2 1 3, 2 0 4, none, 2 2 5; their ids 2 1 0, 3 0 1, 0 0 1,
    2 0 0, 1 1 2, 2 0 1, none, 4 0 1; relations 1 1 0, 1 1 2, 0 1 1, none, 3 1 0, 0 0 2, none, 2 1 2.
    """
    gold = FILES / "invented.PubTator.txt"
    predicted = [FILES / f"invented.predicted-{what}.PubTator" for what in ("names", "relations")]
    names, related = (score_official(gold, path) for path in predicted)
    assert counts(names["mention"]["Disease"]) == (18, 4, 20)
    assert counts(names["id"]["Disease"]) == (14, 2, 6)
    assert counts(names["mention"]["both"]) == (19, 5, 55)  # a disease where gold has chemicals alone now counts
    ignored = {"unknown_document": 1, "document_without_gold": 1, "duplicate": 1, "without_id": 1}
    assert {name: n for name, n in names["ignored"].items() if n} == ignored
    relations = related["relation"]["CID"]
    assert counts(relations) == (7, 5, 7)
    assert [round(relations[key], 4) for key in ("precision", "recall", "f1")] == [0.5833, 0.5, 0.5385]
    for path, figures in zip(predicted, (names, related), strict=True):
        check_against_naive(gold.read_text(encoding="utf-8"), path.read_text(encoding="utf-8"), figures)


def test_both_formats_of_a_corpus_score_alike(corpus):
    figures = score_official(corpus.pubtator, corpus.bioc)
    for row in (row for key in ("mention", "id", "relation") for row in figures[key].values()):
        assert (row["fp"], row["fn"], row["f1"]) == (0, 0, 1.0)
