"""Names of train that answers lack: which are added, where they are not, and what stays as it was."""

from __future__ import annotations

from data.schema import Document, Mention
from data.text import FoldedText
from eval.scoring.baselines import learn_dictionary
from eval.scoring.known_names import add_known_names, find_known_names
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers


def mentions(chemicals, diseases):
    return tuple(Mention(name, "Chemical") for name in chemicals) + tuple(Mention(name, "Disease") for name in diseases)


TRAIN = [Document("t", "Lithium and failure and renal failure.", mentions=mentions(["Lithium"], ["failure", "renal failure"]))]
DICTIONARY = learn_dictionary(TRAIN)


def test_a_name_is_added_once_as_the_text_writes_it_and_not_inside_a_listed_one():
    text = "Acute renal failure after LITHIUM; lithium stopped, and the failure went."
    places = FoldedText(text).places

    def found(*listed):
        return find_known_names(DICTIONARY, text, [place for name in listed for place in places(name)])

    assert found("acute renal failure") == {"chemicals": ("LITHIUM",), "diseases": ("failure",)}
    assert found() == {"chemicals": ("LITHIUM",), "diseases": ("renal failure", "failure")}
    assert not any(found("Lithium", "failure")["chemicals"])


def test_only_lists_of_names_are_added_to_and_what_was_there_stays():
    document = Document("1", "Renal failure and tremor after lithium.", mentions=mentions(["lithium"], ["Renal failure"]))
    answers = {
        ("1", "chemicals"): Answer((), "empty"),
        ("1", "diseases"): Answer(("tremor",), "ok"),
        ("1", "relations"): Answer((("lithium", "tremor"),), "ok"),
    }
    scored = match_answers([document], answers)
    added = add_known_names(scored, DICTIONARY)
    assert added["1", "chemicals"] == Answer(("lithium",), "ok")
    assert added["1", "diseases"].items == ("tremor", "Renal failure")
    assert added["1", "relations"] is answers["1", "relations"]
    cut = match_answers([document], answers | {("1", "chemicals"): Answer((), "truncated")})
    assert add_known_names(cut, DICTIONARY)["1", "chemicals"] == Answer(("lithium",), "truncated")
    nothing = add_known_names(scored, learn_dictionary([Document("u", "Other words.")]))
    assert nothing == answers


def test_a_task_that_is_not_asked_gets_no_names():
    document = Document("1", "Lithium and failure.", tasks=("diseases",))
    scored = match_answers([document], {("1", "diseases"): Answer((), "empty")})
    assert list(add_known_names(scored, DICTIONARY)) == [("1", "diseases")]
