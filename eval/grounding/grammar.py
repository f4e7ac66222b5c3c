"""The language of grounded answers as a grammar that llguidance reads, for servers that keep to one (vLLM).

It says what an item is, but cannot say that an answer ends after a few repeats and within the budget: that is only kept
where tokens are chosen here (`eval.grounding.answer`). Brackets may be nested two deep.
"""

from __future__ import annotations

import json

from eval.grounding.spans import CHUNK, MOST_WORDS

BREAKS = r"|\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
PAIRS = (r"\(", r"\)"), (r"\[", r"\]"), (r"\{", r"\}")


def lark_grammar(article: str, task: str) -> str:
    """A Lark grammar of the answers to `task` in `article`'s own words."""
    chunks = [chunk[0] for chunk in CHUNK.finditer(article)]
    if not any(chunk.isalnum() for chunk in chunks):
        return 'start: "-"'
    item = '"- " ITEM " | " ITEM' if task == "relations" else '"- " ITEM'
    return f"""start: "-" | item ("\\n" item)*
item: {item}
ITEM: SPAN & WORDS & MATCHED & ~(BARE)
SPAN: %regex {json.dumps({"substring_chunks": chunks})}
WORDS: /[^\\s{BREAKS}]+([^\\S{BREAKS}]+[^\\s{BREAKS}]+){{0,{MOST_WORDS - 1}}}/
BARE: /[^\\p{{L}}\\p{{N}}]*/
MATCHED: /{_matched(2)}/
"""


def _matched(depth: int) -> str:
    """A regular expression of texts whose brackets match, nested `depth` deep at most."""
    plain = r"[^()\[\]{}]"
    if depth == 0:
        return f"{plain}*"
    inner = _matched(depth - 1)
    return f"({plain}|" + "|".join(f"{opening}{inner}{closing}" for opening, closing in PAIRS) + ")*"
