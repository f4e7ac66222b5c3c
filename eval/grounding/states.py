"""The states of grounded decoding within an item: what is written of it, and the tokens that go on from there.

The states of an article are few and built only when reached, each with the short list of its tokens: picking the best of
those costs a row a fraction of what filling and applying a mask over the vocabulary would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from data.schema import InputError
from eval.grounding.spans import FAR, Spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """`pieces`: the bytes of every token, and each beginning of them, to the token's id (-1: a beginning only).

    `missing`: the bytes that have no token of their own; no item may contain one of them.
    """

    pieces: dict[bytes, int]
    texts: dict[int, bytes]
    stop: int
    missing: frozenset[int] = frozenset()


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, stop: int) -> Vocabulary:
    """The tokens of a fast tokenizer in bytes, markers left out; `stop` ends an answer."""
    from llguidance.hf import from_tokenizer

    known = from_tokenizer(tokenizer)
    markers = set(tokenizer.added_tokens_decoder)
    ordinary = (i for i in range(len(tokenizer)) if i not in markers and not known.is_special_token(i))
    return build_vocabulary({i: known.decode_bytes([i]) for i in ordinary}, stop)


def build_vocabulary(texts: dict[int, bytes], stop: int) -> Vocabulary:
    """`texts`: the bytes of each token of an answer. Raises InputError where `-`, ` `, `|` or line break has none."""
    pieces: dict[bytes, int] = {}
    for token, text in texts.items():
        for end in range(1, len(text)):
            pieces.setdefault(text[:end], -1)
        if text:
            pieces[text] = token
    missing = frozenset(byte for byte in range(256) if pieces.get(bytes([byte]), -1) < 0)
    lacking = [chr(byte) for byte in b"- |\n" if byte in missing]
    if lacking:
        raise InputError(
            f"grounded decoding: the tokenizer has no token for {lacking}; take a model with a byte-level tokenizer"
        )
    return Vocabulary(pieces, texts, stop, missing)


@dataclass(frozen=True)
class Node:
    """Where an answer stands within an item: `prefix` is written, `lead` (a space or nothing) is still to come before it.

    `ids[k]` goes on with the item, `need[k]` bytes at least are missing after it; `starts[k]` are the spans it is still in.
    `closing`: tokens that end an item and write the first bytes of what follows: token -> (item, how many bytes).
    """

    lead: bytes
    prefix: bytes
    complete: bool
    ids: numpy.ndarray
    need: numpy.ndarray
    starts: list[list[int]]
    place: dict[int, int]
    closing: dict[int, tuple[bytes, int]]


class Language:
    """The nodes of one article's items, built when first reached; `follow` comes between an item and the next one."""

    def __init__(self, spans: Spans, vocabulary: Vocabulary, follow: bytes):
        self.spans, self.vocabulary, self.follow = spans, vocabulary, follow
        self._nodes: dict[tuple[bytes, bytes], Node] = {}

    def root(self, lead: bytes) -> Node:
        return self._node(lead, b"", self.spans.starts)

    def after(self, node: Node, token: int) -> Node:
        """The node that a token of `node.ids` leads to."""
        written = node.prefix + self.vocabulary.texts[token][len(node.lead) :]
        return self._node(b"", written, node.starts[node.place[token]])

    def _node(self, lead: bytes, prefix: bytes, starts: list[int]) -> Node:
        known = self._nodes.get((lead, prefix))
        if known is None:
            known = self._nodes[lead, prefix] = self._build(lead, prefix, starts)
        return known

    def _build(self, lead: bytes, prefix: bytes, starts: list[int]) -> Node:
        text, pieces, next_end = self.spans.text, self.vocabulary.pieces, self.spans.next_end
        found: dict[int, list] = {}
        closing: dict[int, tuple[bytes, int]] = {}
        complete = False
        for start in starts:
            at = start + len(prefix)
            here = at
            while True:
                piece = lead + text[at:here]
                token = pieces.get(piece, -1) if piece else 0
                end = next_end(start, here)
                if end is None or (piece and piece not in pieces):
                    break
                if here > start and end == here:
                    complete = complete or here == at
                    self._close(closing, piece, text[start:here])
                if piece and token >= 0:
                    entry = found.setdefault(token, [FAR, []])
                    entry[0] = min(entry[0], end - here)
                    entry[1].append(start)
                here += 1
        ids = numpy.fromiter(found, numpy.int64, len(found))
        need = numpy.fromiter((entry[0] for entry in found.values()), numpy.int64, len(found))
        place = {token: number for number, token in enumerate(found)}
        return Node(lead, prefix, complete, ids, need, [entry[1] for entry in found.values()], place, closing)

    def _close(self, closing: dict[int, tuple[bytes, int]], piece: bytes, item: bytes) -> None:
        for count in range(1, len(self.follow) + 1):
            token = self.vocabulary.pieces.get(piece + self.follow[:count])
            if token is None:
                return
            if token >= 0:
                closing[token] = item, count
