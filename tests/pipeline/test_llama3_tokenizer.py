"""What is shown elsewhere with small tokenizers, shown with Llama 3's own: 128,256 tokens, its split, Llama 3.2's template.

Fetched by `make llama3-tokenizer` (tests/support/llama3_tokenizer.py); skipped where it was not.
"""

from __future__ import annotations

import json
import random
import re
import shutil

import pytest
from articles import is_item
from hard_strings import HARD
from llama3_tokenizer import CACHE, FILES, is_whole, write_llama_3_2
from llama_server import serve, tokenize
from tiny_llama import save_base

from data.corpus import read_corpus
from data.prompts import LAYOUTS, answer_of, conversations, read_answer, render_answer
from data.readers.rows import render_rows
from data.schema import TASKS, Document, Mention, Relation
from data.split import split_documents
from eval.chat_template import read_template
from eval.chats import Chat, plan_chats
from eval.engines.client import open_server
from eval.engines.llama_cpp import byte_level, read_server_template
from eval.grounding.answer import grounding
from eval.grounding.repeats import drop_repeats
from eval.grounding.states import read_vocabulary
from pipeline.base_model import TINY
from pipeline.cli import main
from pipeline.export.gguf import convert_to_gguf
from pipeline.model import DATE, load_tokenizer
from pipeline.plan.lengths import answer_budgets
from pipeline.training.loss_mask import encode_documents

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_whole(), reason="Llama 3's tokenizer was not fetched: make llama3-tokenizer"),
]
END = 128009
RESERVED_FF = 187  # the token of byte 0xFF, which no text holds: llguidance keeps it for its markers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llama_3_2(tmp_path_factory.mktemp("llama-3.2"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return read_vocabulary(tokenizer, read_template(tokenizer).end)


@pytest.fixture(scope="module")
def documents(shared_data):
    """300 of the thousand articles of the user's rows, drawn by chance."""
    return random.Random(0).sample(read_corpus(shared_data / "both_rel_instruct_all.jsonl").documents, 300)


@pytest.fixture(scope="module")
def encoded(tokenizer, documents):
    return encode_documents(tokenizer, documents, "conversation")


def hard_documents() -> list[Document]:
    """Every hard string as an article, in a title, and as names and relations where an answer can hold it."""
    made = []
    for number, text in enumerate(HARD):
        names = [line.strip() for line in re.split(r"[\n\r|]", text) if line.strip()]
        mentions = tuple(Mention(name, kind) for name in names for kind in ("Chemical", "Disease"))
        relations = tuple(Relation(one, other) for one in names[:3] for other in names[:3])
        made.append(Document(f"hard-{number}", f"{text} was given.", text.split("\n")[0].strip() or None, mentions, relations))
    return made


def check_masks(tokenizer, chats, examples):
    """Supervised tokens are each answer with its end, nothing else; the ids are those of the rendered chat, one begin token."""
    for chat, example in zip(chats, examples, strict=True):
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        assert example["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert example["input_ids"].count(tokenizer.bos_token_id) == 1
        pairs = list(zip(example["input_ids"], example["completion_mask"], strict=True))
        trained = tokenizer.decode([token for token, supervised in pairs if supervised], clean_up_tokenization_spaces=False)
        answers = [message["content"] for message in chat if message["role"] == "assistant"]
        assert trained == "".join(f"{answer}<|eot_id|>" for answer in answers)
        starts = [at for at, (before, now) in enumerate(zip([(0, 0), *pairs], pairs, strict=False)) if now[1] > before[1]]
        assert len(starts) == len(answers)
        header = tokenizer("<|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)["input_ids"]
        assert all(example["input_ids"][at - len(header) : at] == header for at in starts)


def test_the_tokenizer_is_read_as_llama_3_2s(tokenizer):
    assert (len(tokenizer), read_template(tokenizer).end, tokenizer.eos_token) == (128_256, END, "<|eot_id|>")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|finetune_right_pad_id|>", 128_004)
    for messages in conversations(Document("a", "Zoltamine."), "conversation"):
        assert f"Today Date: {DATE}" in tokenizer.apply_chat_template(messages, tokenize=False)


def test_llama_3s_own_markers_and_template_are_read_too(tmp_path):
    """The package as it is: no padding token of its own, an older template."""
    for name in FILES:
        shutil.copy(CACHE / name, tmp_path / name)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_token, read_template(tokenizer).end) == ("<|reserved_special_token_0|>", END)
    chats = [chat for document in hard_documents() for chat in conversations(document, "conversation")]
    check_masks(tokenizer, chats, encode_documents(tokenizer, hard_documents(), "conversation"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_of_hard_strings(layout, tokenizer):
    chats = [chat for document in hard_documents() for chat in conversations(document, layout)]
    check_masks(tokenizer, chats, encode_documents(tokenizer, hard_documents(), layout))


def test_masks_of_the_users_rows(tokenizer, documents, encoded):
    """Every prompt was a prefix of its chat, or encoding would have refused it; a hundred chats are looked at closely."""
    assert len(encoded) == len(documents)
    some = documents[:100]
    check_masks(tokenizer, [chat for document in some for chat in conversations(document, "conversation")], encoded[:100])
    chats = [chat for document in some[:30] for chat in conversations(document, "separate")]
    check_masks(tokenizer, chats, encode_documents(tokenizer, some[:30], "separate"))


def test_generation_reads_the_ids_of_training(tokenizer, documents, encoded):
    chats = plan_chats(documents[:100], layout="conversation", max_new_tokens=9)
    template = read_template(tokenizer)
    for chat, example in zip(chats, encoded, strict=False):
        read = []
        for task, turn in zip(chat.tasks, template.prompt_ids(chat.prompts), strict=True):
            answer = tokenizer(answer_of(chat.document, task), add_special_tokens=False)["input_ids"]
            read += [*turn, *answer]
        assert example["input_ids"] == [*read, END]


def test_answers_come_back_from_their_ids(tokenizer, documents):
    for document in [*documents, *hard_documents()]:
        for task in document.tasks:
            ids = tokenizer(render_answer(document.gold(task)), add_special_tokens=False)["input_ids"]
            text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert read_answer(text, task) == (list(document.gold(task)), [])


def test_every_marker_is_read_as_the_characters_that_it_is(tokenizer):
    template = read_template(tokenizer)
    markers = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    assert len(markers) == 256
    own = sum(number in markers.values() for number in template.prompt_ids(["a"])[0])
    for marker in markers:
        ids = template.prompt_ids([f"An {marker} in it."])[0]
        assert sum(number in markers.values() for number in ids) == own, marker
    document = Document("a", "A <|eot_id|>.", mentions=(Mention("<|eot_id|>", "Chemical"),))
    example = encode_documents(tokenizer, [document], "conversation")[0]
    assert example["input_ids"].count(END) == len(document.tasks) * 2 + 1


def test_what_only_looks_like_a_marker_is_text(tokenizer):
    text = "<|eot_id |> <eot_id> <|EOT_ID|> |eot_id|> <|begin_of_text <|reserved_special_token_248|> </s> [INST] <<SYS>>"
    (example,) = encode_documents(tokenizer, [Document("a", text)], "conversation")
    plain = encode_documents(tokenizer, [Document("a", "Zoltamine.")], "conversation")[0]
    assert [i for i in example["input_ids"] if i >= 128_000] == [i for i in plain["input_ids"] if i >= 128_000]


def answer_lengths(tokenizer, documents, task) -> list[int]:
    """Tokens of each gold answer, its end token included."""
    answers = [answer_of(document, task) for document in documents]
    return [len(ids) + 1 for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]]


def test_budgets_hold_the_answers_of_test(tokenizer, documents):
    """Derived from train; all but a few of the other articles' answers fit, each with its end token."""
    split = split_documents(documents, 42)
    budgets = answer_budgets(tokenizer, split["train"])
    lengths = {(name, task): answer_lengths(tokenizer, split[name], task) for name in split for task in TASKS}
    assert all(max(lengths["train", task]) < budgets[task] for task in TASKS)
    late = [length > budgets[task] for (name, task), own in lengths.items() if name != "train" for length in own]
    assert len(late) == 180 and sum(late) <= 1


def test_the_plans_lengths_are_the_tokenizers(folder, documents, encoded, tmp_path, capsys):
    """Counted before anything is loaded: with the model's own tokenizer.json, and without it from the embedded one's."""
    corpus = tmp_path / "rows.jsonl"
    corpus.write_text(render_rows(documents), encoding="utf-8")
    split = split_documents(read_corpus(corpus).documents, 42)
    lengths = {document.article: len(one["input_ids"]) for document, one in zip(documents, encoded, strict=True)}
    tokens = sum(lengths[document.article] for document in split["train"])
    for name in (str(folder), "unsloth/Llama-3.2-3B-Instruct"):
        asked = ["--data", str(corpus), "--set", f"model.name={name}", "train.layout=conversation"]
        shutil.copy(TINY / "config.json", folder)
        assert main(["plan", "--gpu", "t4", "--json", *asked]) == 0
        assert 1.0 <= json.loads(capsys.readouterr().out)["data"]["tokens"] / tokens <= 1.08, name


def test_the_vocabulary_in_bytes(tokenizer, vocabulary):
    byte_of, tokens = byte_level(), tokenizer.convert_ids_to_tokens(range(128_000))
    texts = {number: bytes(byte_of[character] for character in token) for number, token in enumerate(tokens)}
    assert texts.pop(RESERVED_FF) == b"\xff"
    assert vocabulary.texts == texts and vocabulary.stop == END


def in_article(name: str, article: str) -> bool:
    return any(is_item(article, found.start(), found.end()) for found in re.finditer(re.escape(name), article))


def write(vocabulary, document, task, budget, choose) -> str:
    """A grounded answer, repeats taken out, of a policy that picks from the ids allowed; it ends within the budget or fails."""
    answer = grounding(vocabulary)(Chat(document, (task,), ("",), (budget,)), 0, ())
    written = b""
    for _ in range(budget):
        token = choose(answer.allowed().tolist())
        answer.take(token)
        if token == vocabulary.stop:
            return drop_repeats({"completion": written.decode(), "finish": "stop"}, task)["completion"]
        written += vocabulary.texts[token]
    raise AssertionError(f"no end in {budget} tokens: {written!r}")


def test_grounded_decoding_lets_gold_be_written_as_the_tokenizer_writes_it(tokenizer, vocabulary, documents):
    written = 0
    for document in documents[:100]:
        for task in TASKS:
            gold = document.gold(task)
            names = {side for item in gold for side in ([item] if isinstance(item, str) else item)}
            if not all(in_article(name, document.article) for name in names):
                continue
            answer = answer_of(document, task)
            ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], END]
            left = iter(ids)

            def follow(allowed, left=left, where=(document.id, task)):
                token = next(left)
                assert token in allowed, (*where, tokenizer.decode([token]))
                return token

            assert write(vocabulary, document, task, len(ids) + 60, follow) == answer
            written += 1
    assert written > 200


def test_grounded_decoding_under_any_policy(vocabulary, documents):
    chance = random.Random(1)
    hard = [document for document in hard_documents() if document.article.strip()]
    for document in [*hard, *documents[:40]]:
        for task in TASKS:
            answer = write(vocabulary, document, task, chance.randint(2, 60), chance.choice)
            items, malformed = read_answer(answer, task)
            assert not malformed and len(items) == len(set(items)), answer
            names = [side for item in items for side in ([item] if isinstance(item, str) else item)]
            assert all(in_article(name, document.article) for name in names), answer


@pytest.fixture(scope="module")
def gguf(tokenizer, tmp_path_factory):
    """A random Llama with the tokenizer as training saves it, exported by the project."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("gguf")
    model = AutoModelForCausalLM.from_pretrained(save_base(folder / "model", width=64))
    model.resize_token_embeddings(128_256, mean_resizing=False)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return convert_to_gguf(folder / "model", folder / "model.gguf", "f16", {})


def test_llama_cpp_reads_texts_as_the_tokenizer_does(gguf, tokenizer, documents):
    texts = [*HARD, " ".join(HARD), "\n\n".join(HARD), *(document.article for document in documents)]
    with serve(gguf) as client:
        for text in texts:
            assert tokenize(client, text) == tokenizer(text, add_special_tokens=False)["input_ids"], text
        with open_server(str(client.base_url), timeout=60) as server:
            served, own = read_server_template(server), read_template(tokenizer)
            for chat in plan_chats([*documents[:30], *hard_documents()], layout="conversation", max_new_tokens=9):
                assert served.prompt_ids(chat.prompts) == own.prompt_ids(chat.prompts)


def test_the_audit_counts_with_it(folder, tmp_path, tokenizer, documents, capsys):
    corpus = tmp_path / "rows.jsonl"
    corpus.write_text(render_rows(documents[:20]), encoding="utf-8")
    assert main(["data", "audit", str(corpus), "--tokenizer", str(folder / "tokenizer.json"), "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)["tokens"]
    answers = [answer_of(d, task) for d in documents[:20] for task in TASKS]
    longest = max(len(ids) for ids in tokenizer(answers, add_special_tokens=False)["input_ids"])
    assert counted["completion"]["max"] == longest
