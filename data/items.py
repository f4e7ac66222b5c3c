"""An item of an answer, a name or a pair of names: its names, its normalised form, how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from data.text import normalise

Item = str | tuple[str, str]


def names_of(item: str | tuple[str, str]) -> tuple[str, ...]:
    """The one name of an item of a list, or the two of a relation."""
    return (item,) if isinstance(item, str) else item


def share(part: int, whole: int) -> float:
    """part / whole, and 0 where there is no whole."""
    return part / whole if whole else 0.0


@overload
def normalise_item(item: tuple[str, str]) -> tuple[str, str]: ...
@overload
def normalise_item(item: Item) -> Item: ...
def normalise_item(item: Item) -> Item:
    """An item as it is compared: each of its names normalised."""
    return normalise(item) if isinstance(item, str) else (normalise(item[0]), normalise(item[1]))


def index_items(items: Sequence[Item]) -> dict[Item, Item]:
    """By normalised item, the item as it was first written."""
    first: dict[Item, Item] = {}
    for item in items:
        first.setdefault(normalise_item(item), item)
    return first


def show(item: str | Sequence[str]) -> str:
    """An item as a reader sees it: a name, or "chemical | disease"."""
    return item if isinstance(item, str) else " | ".join(item)
