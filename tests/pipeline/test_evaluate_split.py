"""What a run's evaluation adds to its scores: the official figures, where the corpus has the offsets they need."""

from __future__ import annotations

from data.schema import Document, Mention
from eval.scoring.parse import Answer
from pipeline.evaluate_split import score_officially, write_names_as_offsets

TEXT = "Lithium caused a tremor; lithium was stopped."
GOLD = (Mention("Lithium", "Chemical", 0, 7), Mention("tremor", "Disease", 17, 23), Mention("lithium", "Chemical", 25, 32))


def test_predicted_names_get_strict_mention_figures(tmp_path):
    document = Document("1", TEXT, "Tremor", tuple(Mention(m.text, m.type, m.start + 7, m.end + 7) for m in GOLD))
    answers = {("1", "chemicals"): Answer(("lithium",), "ok"), ("1", "diseases"): Answer((), "empty")}
    write_names_as_offsets([document], answers | {("1", "relations"): Answer((), "empty")}, tmp_path / "predictions.PubTator")
    mention = score_officially([document], tmp_path)["mention"]
    assert [mention["Chemical"][key] for key in ("tp", "fp", "fn")] == [2, 0, 0]
    assert [mention["Disease"][key] for key in ("tp", "fp", "fn")] == [0, 0, 1]


def test_without_offsets_there_is_a_reason_instead(tmp_path):
    document = Document("1", TEXT, None, (Mention("lithium", "Chemical"),))
    official = score_officially([document], tmp_path)
    assert official["mention"] is None and "offsets" in official["reason"]
