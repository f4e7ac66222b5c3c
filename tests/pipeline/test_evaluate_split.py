"""What a run's evaluation adds to its scores: the official figures, where the corpus has the offsets they need."""

from __future__ import annotations

from data.schema import Document, Mention, Relation
from eval.scoring.parse import Answer
from pipeline.evaluate_split import score_against_gold, write_names_as_offsets

TEXT = "Lithium caused a tremor; lithium was stopped."
GOLD = (Mention("Lithium", "Chemical", 0, 7), Mention("tremor", "Disease", 17, 23), Mention("lithium", "Chemical", 25, 32))


def test_predicted_names_get_strict_mention_figures(tmp_path):
    document = Document("1", TEXT, "Tremor", tuple(Mention(m.text, m.type, m.start + 7, m.end + 7) for m in GOLD))
    answers = {("1", "chemicals"): Answer(("lithium",), "ok"), ("1", "diseases"): Answer((), "empty")}
    answers["1", "relations"] = Answer((), "empty")
    write_names_as_offsets([], [document], answers, tmp_path / "predictions.PubTator")
    mention = score_against_gold([document], tmp_path)["mention"]
    assert [mention["Chemical"][key] for key in ("tp", "fp", "fn")] == [2, 0, 0]
    assert [mention["Disease"][key] for key in ("tp", "fp", "fn")] == [0, 0, 1]


def test_without_offsets_there_is_a_reason_instead(tmp_path):
    document = Document("1", TEXT, None, (Mention("lithium", "Chemical"),))
    official = score_against_gold([document], tmp_path)
    assert official["mention"] is None and "offsets" in official["reason"]


LINKED = (Mention("Lithium", "Chemical", 0, 7, ("C1",)), Mention("tremor", "Disease", 17, 23, ("D1",)))
LINKED += (Mention("lithium", "Chemical", 25, 32, ("C1",)),)


def test_relations_are_written_by_the_ids_that_train_has_and_the_others_are_counted(tmp_path):
    document = Document("1", TEXT, None, LINKED, (Relation("Lithium", "tremor", "C1", "D1"),))
    answers = {("1", "chemicals"): Answer(("lithium",), "ok"), ("1", "diseases"): Answer(("tremor",), "ok")}
    answers["1", "relations"] = Answer((("lithium", "tremor"), ("zinc", "tremor")), "ok")
    path = tmp_path / "predictions.PubTator"
    written = write_names_as_offsets([document], [document], answers, path)
    assert written == {"written": 1, "left_out": 1, "reason": "a name of theirs has no concept id in train"}
    assert "1\tCID\tC1\tD1" in path.read_text().splitlines()
    assert score_against_gold([document], tmp_path)["relation"]["f1"] == 1
    written = write_names_as_offsets([], [document], answers, path)
    assert written["left_out"] == 2 and "no name in train has a concept id" in written["reason"]
