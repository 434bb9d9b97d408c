"""A settings model as lines for `--help`: each key with what it takes, its default, and what it means."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

INDENT = 4


def describe(model: type[BaseModel], width: int = 100) -> str:
    """Every key of the settings, those of a section together."""
    lines: list[str] = []
    for path, field in _fields(model, ()):
        default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        head = f"  {'.'.join(path)}: {_kind(field.annotation)}"
        lines.append(head + ("" if default is None else f"  ({default})"))
        if field.description:
            indent = " " * INDENT
            lines += textwrap.wrap(field.description, width, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _fields(model: type[BaseModel], below: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield (*below, name), field
        else:
            suffix = "[…]" if _is_list(field.annotation) else ""
            yield from _fields(section, (*below, name + suffix))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The settings model that a field holds, or None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list):
        return next((found for part in typing.get_args(annotation) if (found := _section(part))), None)
    return None


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list or any(
        typing.get_origin(part) is list for part in typing.get_args(annotation)
    )


def _kind(annotation: Any) -> str:
    """What may stand there, in short: `int`, `true|false`, `adamw|muon`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(_value(part)) for part in parts)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(_kind(part) for part in parts if part is not type(None))
    if origin in (list, tuple):
        return f"[{', '.join(_kind(part) for part in parts)}{', …' if origin is list else ''}]"
    if origin is dict:
        return "mapping"
    return {str: "text", bool: "true|false", float: "number", int: "int"}.get(annotation, "value")


def _value(value: Any) -> Any:
    """A default as YAML has it; None where there is nothing to say."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return f"[{', '.join(str(_value(part)) for part in value)}]"
    return None if value is PydanticUndefined else value
