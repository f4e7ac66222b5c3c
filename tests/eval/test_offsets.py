"""Names put back to offsets: which occurrence a name gets, and that gold names score as gold."""

from __future__ import annotations

import pytest

from data.readers.pubtator import read_pubtator, write_pubtator
from data.schema import Document, Mention
from eval.official.biocreative import score_official
from eval.official.offsets import locate_mentions, write_mentions

ARTICLE = Document("1", "Lithium-induced renal failure. β-Zol  HCl and Zol; failure of lithium(I) (Li+).", "Renal failure")


def located(chemicals: list[str], diseases: list[str], document: Document = ARTICLE) -> list[tuple[str, str]]:
    mentions = locate_mentions(document, chemicals, diseases)
    assert [document.article[m.start : m.end] for m in mentions] == [m.text for m in mentions]
    assert [m.start for m in mentions] == sorted(m.start for m in mentions)
    return [(m.text, m.type[0]) for m in mentions]


@pytest.mark.parametrize(
    ("chemicals", "diseases", "expected"),
    [
        ([], [], []),
        (["LITHIUM"], [], [("Lithium", "C"), ("lithium", "C")]),
        (["thium"], ["fail"], []),  # whole words only
        ([], ["failure", "renal failure"], [("Renal failure", "D"), ("renal failure", "D"), ("failure", "D")]),
        (["lithium(I)", "lithium"], [], [("Lithium", "C"), ("lithium(I)", "C")]),
        (["renal"], ["renal failure"], [("Renal failure", "D"), ("renal failure", "D")]),  # the longer type's characters
        (["Li+"], [], [("Li+", "C")]),
        (['"Li+",'], ["failure."], [("failure", "D"), ("failure", "D"), ("failure", "D"), ("Li+", "C")]),
        (["β-zol  hcl"], [], [("β-Zol  HCl", "C")]),  # as it is, where normalising its inside would lose it
        (["Zol", "zol", "ZOL;"], [], [("Zol", "C"), ("Zol", "C")]),
        (["Li+"], ["li+"], [("Li+", "C"), ("Li+", "D")]),  # said to be both: both are written
        (["aspirin", "", "  ", "."], [], []),
    ],
)
def test_every_whole_word_occurrence_longest_first(chemicals, diseases, expected):
    assert located(chemicals, diseases) == expected


def test_offsets_count_original_characters():
    assert locate_mentions(Document("1", "İİ ﬁbrosis"), [], ["fibrosis"]) == (Mention("ﬁbrosis", "Disease", 3, 10),)


@pytest.mark.parametrize("title", ["Gout of zol", None])
def test_predictions_are_scored_officially(tmp_path, title):
    gold = Document("1", "zol and gout", title)
    gold = Document("1", gold.text, title, locate_mentions(gold, ["zol"], ["gout"]))
    write_pubtator([gold, Document("2", "zol", "Zol")], tmp_path / "gold")
    items = {"1": {"chemicals": ["Zol", "lead"], "diseases": ["gout"], "relations": [("zol", "gout")]}}
    assert write_mentions([gold, Document("2", "zol", "Zol")], items, tmp_path / "predictions.PubTator") == {
        "names_nowhere": 1, "relations": 0, "relations_without_ids": 1,
    }  # fmt: skip
    figures = score_official(tmp_path / "gold", tmp_path / "predictions.PubTator")
    assert [figures["mention"][kind]["f1"] for kind in ("Chemical", "Disease", "both")] == [1.0] * 3
    assert figures["warnings"] == {"foreign_id": 0, "text_differs": 0}


def test_gold_names_put_back_score_as_gold(corpus, tmp_path):
    gold = corpus.pubtator
    documents = read_pubtator(gold)
    items = {document.id: {task: document.gold(task) for task in ("chemicals", "diseases")} for document in documents}
    assert write_mentions(documents, items, tmp_path / "predictions.PubTator")["names_nowhere"] < 10
    mention = score_official(gold, tmp_path / "predictions.PubTator")["mention"]
    assert min(row["f1"] for row in mention.values()) >= 0.995


def test_rows_become_pubtator_with_what_it_cannot_hold_counted(tmp_path):
    from data.readers.pubtator import read_pubtator, write_pubtator
    from data.schema import Relation
    from eval.official.offsets import for_pubtator

    names = (Mention("lithium", "Chemical"), Mention("tremor", "Disease"), Mention("goitre", "Disease"))
    document = Document("1", "Lithium caused a tremor; lithium was stopped.", None, names, (Relation("lithium", "tremor"),))
    held, lost = for_pubtator([document])
    write_pubtator(held, tmp_path / "c.txt")
    (read,) = read_pubtator(tmp_path / "c.txt")
    assert [mention.text for mention in read.mentions] == ["Lithium", "tremor", "lithium"]
    assert lost == {"names that stand nowhere on their own": 1, "relations without concept ids": 1}
