"""Grounded decoding against its definition, written out the plain way, under policies far worse than any model."""

import random
import re

import pytest
from articles import is_item
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_llama import tiny_tokenizer

from data.prompts import read_answer
from data.schema import TASKS, Document, InputError
from data.text import normalise
from eval.chats import Chat
from eval.grounding.answer import grounding
from eval.grounding.repeats import drop_repeats
from eval.grounding.spans import article_spans
from eval.grounding.states import build_vocabulary, read_vocabulary


def items_of(article):
    return {
        article[start:end]
        for start in range(len(article))
        for end in range(start + 1, len(article) + 1)
        if is_item(article, start, end)
    }


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = tiny_tokenizer()
    return read_vocabulary(tokenizer, tokenizer.eos_token_id)


def with_pieces(vocabulary, *pieces):
    """The same vocabulary with tokens that cross borders, as large vocabularies have."""
    texts = dict(vocabulary.texts)
    for number, piece in enumerate(pieces):
        texts[10_000 + number] = piece
    return build_vocabulary(texts, vocabulary.stop)


CROSSING = (
    b")\n",
    b"\n- ",
    b"\n-",
    b" |",
    b" | ",
    b"| ",
    b"- ",
    b" (",
    b" \xce",
    b"a\n",
    b"1) |",
    b") ",
    b". ",
    b"a b",
    b"|",
    b" a |",
)


def write_answer(vocabulary, article, task, budget, choose, earlier=(), listed_sides=False):
    """An answer by a policy, repeats taken out: `choose(allowed ids)` picks each token.

    Fails where nothing is allowed or the budget is passed.
    """
    tasks = TASKS if earlier else (task,)
    chat = Chat(Document("d", article), tasks, ("",) * len(tasks), (budget,) * len(tasks))
    answer = grounding(vocabulary, listed_sides)(chat, tasks.index(task), earlier)
    written = b""
    for _ in range(budget):
        allowed = answer.allowed()
        assert len(allowed)
        token = choose(allowed.tolist())
        answer.take(token)
        if token == vocabulary.stop:
            return drop_repeats({"completion": written.decode(), "finish": "stop"}, task)["completion"]
        written += vocabulary.texts[token]
    raise AssertionError(f"no stop within {budget} tokens: {written!r}")


def check_answer(article, task, answer):
    assert answer == "-" or answer.startswith("- ")
    items, malformed = read_answer(answer, task)
    assert not malformed
    distinct = {tuple(map(normalise, [item] if isinstance(item, str) else item)) for item in items}
    assert len(items) == len(distinct) == (0 if answer == "-" else answer.count("\n") + 1)
    for name in [side for item in items for side in ([item] if isinstance(item, str) else item)]:
        places = [found.start() for found in re.finditer(f"(?={re.escape(name)})", article)]
        assert any(is_item(article, start, start + len(name)) for start in places), name


articles = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(
            [
                "aspirin",
                "Na+",
                "5-HT(1A)",
                "(",
                ")",
                "[3H]",
                "{",
                "| ",
                "\n",
                " ",
                "  ",
                "a",
                "\u03b1-b",
                '"',
                ", ",
                "\u2028",
                "- ",
            ]
        ),
    ),
    max_size=10,
).map("".join)


@settings(max_examples=50, deadline=None)
@given(article=articles)
@example(article="a (b c) d] [e")
@example(article="w " * 25)
@example(article="e\u0301 \u00a0x\u2009y _ z_1")
def test_spans_are_the_definition(article):
    spans = article_spans(article)
    found = set()
    for start in spans.starts:
        end = spans.next_end(start, start)
        while end is not None:
            found.add(spans.text[start:end].decode())
            end = spans.next_end(start, end + 1)
    assert found == items_of(article)


@settings(max_examples=200, deadline=None)
@given(
    article=articles,
    task=st.sampled_from(TASKS),
    budget=st.integers(2, 60),
    seed=st.integers(0, 10**6),
    hunger=st.sampled_from([0.0, 0.5, 1.0]),
    crossing=st.booleans(),
)
def test_any_answer_parses_is_verbatim_and_ends(vocabulary, article, task, budget, seed, hunger, crossing):
    """`hunger`: how often the policy goes for the end token last of all."""
    if crossing:
        vocabulary = with_pieces(vocabulary, *CROSSING)
    chance = random.Random(seed)

    def choose(allowed):
        if len(allowed) > 1 and chance.random() < hunger:
            allowed = [token for token in allowed if token != vocabulary.stop] or allowed
        return chance.choice(allowed)

    check_answer(article, task, write_answer(vocabulary, article, task, budget, choose))


@settings(max_examples=40, deadline=None)
@given(
    chemicals=st.sets(st.sampled_from(["a", "a b", "(c)", "\u03b1"])),
    diseases=st.sets(st.sampled_from(["d", "a", "d\u00e9"])),
    seed=st.integers(0, 999),
)
def test_sides_from_the_lists(vocabulary, chemicals, diseases, seed):
    earlier = ["\n".join(f"- {name}" for name in sorted(names)) or "-" for names in (chemicals, diseases)]
    choose = random.Random(seed).choice
    answer = write_answer(vocabulary, "a b (c) \u03b1 d d\u00e9", "relations", 40, choose, earlier, listed_sides=True)
    pairs, malformed = read_answer(answer, "relations")
    assert not malformed and len(pairs) == len(set(pairs))
    assert all(chemical in chemicals and disease in diseases for chemical, disease in pairs)
    assert (chemicals and diseases) or answer == "-"


def test_sides_from_the_lists_need_the_lists(vocabulary):
    with pytest.raises(InputError, match="conversation layout"):
        write_answer(vocabulary, "a", "relations", 9, min, listed_sides=True)


def test_every_item_can_be_written_as_the_tokenizer_writes_it(vocabulary):
    tokenizer = tiny_tokenizer()
    article = "5-HT(1A) and [3H]-naloxone, (+)-catechin; \u03b1-methyldopa in rats.\nTremor (mild)"
    names = ["5-HT(1A)", "[3H]-naloxone", "(+)-catechin", "\u03b1-methyldopa", "Tremor (mild)", "rats"]
    answers = [
        ("chemicals", "- " + "\n- ".join(names)),
        ("relations", "- " + "\n- ".join(f"{a} | {b}" for a in names for b in names)),
    ]
    for task, answer in [*answers, ("diseases", "-")]:
        ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        left = iter(ids)

        def follow(allowed, left=left):
            token = next(left)
            assert token in allowed
            return token

        assert write_answer(vocabulary, article, task, len(ids) + 60, follow) == answer


def speak(vocabulary, text):
    """A policy that writes `text` token by token as long as that is allowed, then the first token allowed."""
    ids = tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
    left = iter([*ids, vocabulary.stop])
    return lambda allowed: token if (token := next(left, None)) in allowed else allowed[0]


def test_a_repeated_line_may_end_and_is_taken_out(vocabulary):
    """It was forbidden once, and a model that repeats itself lengthened the name instead: "lithium, which"."""
    said = "- lithium\n- lithium\n- Lithium\n- tremor\n- lithium"
    article = "lithium, which gives tremor. Lithium again"
    assert write_answer(vocabulary, article, "chemicals", 200, speak(vocabulary, said)) == "- lithium\n- tremor"
    said = "- lithium | tremor\n- lithium | Lithium\n- lithium | tremor"
    assert write_answer(vocabulary, article, "relations", 200, speak(vocabulary, said)) == said.rpartition("\n")[0]


def test_an_answer_ends_after_three_repeats_in_a_row(vocabulary):
    said = "- lithium" + "\n- lithium" * 3 + "\n- tremor" * 50
    allowed_last, policy = [], speak(vocabulary, said)

    def choose(allowed):
        allowed_last[:] = allowed
        return policy(allowed)

    assert write_answer(vocabulary, "lithium gives tremor", "chemicals", 200, choose) == "- lithium"
    assert allowed_last == [vocabulary.stop]


def test_repeats_go_with_their_log_probabilities():
    parts = [["-", -1.0], [" a", -2.0], ["\n-", -3.0], [" A\n", -4.0], ["- b", -5.0], ["\n", -6.0], ["- ", -7.0]]
    row = {"completion": "".join(text for text, _ in parts), "finish": "stop", "logprobs": parts}
    assert drop_repeats(row, "chemicals") == {
        "completion": "- a\n- b",
        "finish": "stop",
        "logprobs": [["-", -1.0], [" a", -2.0], ["\n", -4.0], ["- b", -5.0]],
    }
    shown = {"completion": "- \u03b1\n- \u03b1", "finish": "stop", "logprobs": [["- \\xce\\xb1\n- \\xce\\xb1", -1.0]]}
    assert drop_repeats(shown, "chemicals") == {**shown, "completion": "- \u03b1"}  # tokens that cannot be told apart stay
    cut = {"completion": "- a\n- b\n- a", "finish": "length"}
    assert drop_repeats(cut, "chemicals") == cut  # readers leave the unfinished line out, not the one before it
    assert drop_repeats({"completion": "-", "finish": "stop"}, "diseases")["completion"] == "-"


@pytest.mark.slow
@pytest.mark.parametrize("word", ["naloxone ", "(", "\u03b1-1, "])
def test_a_long_article(vocabulary, word):
    chance = random.Random(1)
    article = "".join(word + chance.choice(["", "of ", "(5-HT) ", ". "]) for _ in range(10_000))
    for task in TASKS:
        check_answer(article, task, write_answer(vocabulary, article, task, 60, chance.choice))


@pytest.mark.parametrize("article", ["", " ", "...", "(", "|", "\n", "()"])
def test_an_article_without_words_has_the_empty_list(vocabulary, article):
    for task in TASKS:
        assert write_answer(vocabulary, article, task, 9, max) == "-"
        assert write_answer(vocabulary, article, task, 2, min) == "-"


def without_bytes(vocabulary, lacking):
    return build_vocabulary({token: text for token, text in vocabulary.texts.items() if text not in lacking}, vocabulary.stop)


@pytest.mark.parametrize("task", TASKS)
def test_bytes_that_the_tokenizer_lacks_cost_only_the_names_that_hold_them(vocabulary, task):
    """As SmolLM2's: no token for some control characters and for the first bytes of rare scripts; here for `\u03b2` too."""
    lacking = [b"\x04", b"\x06", b"\x1d", b"\xc0", b"\xf1", b"\xff", b"\xb2"]
    smaller = without_bytes(vocabulary, lacking)
    article = "aspirin, \u03b2-blocker and a\x04b in \u03b1-rats"
    for seed in range(40):
        chance = random.Random(seed)
        answer = write_answer(
            smaller, article, task, 60, lambda ids, c=chance: c.choice([i for i in ids if i != smaller.stop] or ids)
        )
        check_answer(article, task, answer)
        assert answer != "-" and not any(byte in answer.encode() for byte in lacking)
    assert write_answer(smaller, "\u03b2", task, 60, max) == "-"
    spans, found = article_spans(article, smaller.missing), set()
    for start in spans.starts:
        end = spans.next_end(start, start)
        while end is not None:
            found.add(spans.text[start:end].decode())
            end = spans.next_end(start, end + 1)
    assert found == items_of("aspirin, |-blocker and a|b in \u03b1-rats")


def test_a_tokenizer_without_a_line_break_is_refused(vocabulary):
    with pytest.raises(InputError, match="no token for"):
        without_bytes(vocabulary, [b"\n"])


def test_a_budget_of_one_token_is_refused(vocabulary):
    with pytest.raises(InputError, match="2 tokens at least"):
        write_answer(vocabulary, "a", "chemicals", 1, min)
