"""What `medner settings` prints: every setting with its type and bounds, its value and one line on what it does."""

from __future__ import annotations

import types
import typing
from dataclasses import fields

from pipeline.config import SECTIONS, Settings, flatten

PLAIN = {int: "int", float: "float", str: "str", bool: "bool"}
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def settings_to_json(settings: Settings) -> dict[str, dict]:
    """By "section.key": {"type", "default", "value", "about"}; "value" is the one in `settings`."""
    values, defaults = flatten(settings), flatten(Settings())
    described = {}
    for section, kind in SECTIONS.items():
        for field in fields(kind):
            name = f"{section}.{field.name}"
            info = kind.__pydantic_fields__[field.name]
            described[name] = {
                "type": " ".join([describe_type(info.annotation), *describe_bounds(info.metadata)]),
                "default": defaults[name],
                "value": values[name],
                "about": info.description,
            }
    return described


def render_settings(described: dict[str, dict]) -> str:
    """One line a setting; a value that is not the default stands before it."""
    lines = []
    for name, one in described.items():
        value = show_value(one["value"])
        changed = "" if one["value"] == one["default"] else f" (default {show_value(one['default'])})"
        lines.append(f"{name} = {value}{changed}\n    {one['type']}: {one['about']}")
    return "\n".join(lines)


def describe_type(kind: object) -> str:
    """
    >>> describe_type(float | None), describe_type(tuple[typing.Literal["f16", "q8_0"], ...])
    ('float or null', 'list of f16, q8_0')
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return " ".join([describe_type(inner[0]), *describe_bounds(inner[1:])])
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if one is types.NoneType else describe_type(one) for one in inner)
    if origin is tuple:
        return f"list of {describe_type(inner[0])}"
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    return PLAIN[typing.cast(type, kind)]


def describe_bounds(metadata: typing.Iterable) -> list[str]:
    """
    >>> from annotated_types import Ge, Lt
    >>> describe_bounds([Ge(0), Lt(1)])
    ['>= 0', '< 1']
    """
    found = []
    for one in metadata:
        inner = getattr(one, "metadata", [one])  # the bounds of a Field inside Annotated are one level down
        found += [f"{sign} {getattr(part, name)}" for part in inner for name, sign in BOUNDS.items() if hasattr(part, name)]
    return found


def show_value(value: object) -> str:
    """As it is written after `--set section.key=`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
