"""An item of an answer, a name or a pair of names: its names, its normalised form, how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from data.prompts import Item
from data.text import normalise


def names_of(item: str | tuple[str, str]) -> tuple[str, ...]:
    return (item,) if isinstance(item, str) else item


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@overload
def normalise_item(item: tuple[str, str]) -> tuple[str, str]: ...
@overload
def normalise_item(item: Item) -> Item: ...
def normalise_item(item: Item) -> Item:
    return normalise(item) if isinstance(item, str) else (normalise(item[0]), normalise(item[1]))


def index_items(items: Sequence[Item]) -> dict[Item, Item]:
    """By normalised item, the item as it was first written."""
    first: dict[Item, Item] = {}
    for item in items:
        first.setdefault(normalise_item(item), item)
    return first


def show(item: str | Sequence[str]) -> str:
    return item if isinstance(item, str) else " | ".join(item)
