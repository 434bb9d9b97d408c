"""Reads .json and .jsonl: rows that are objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from neobert.data.examples import at

_HOW = "Write a list of objects, or an object a line (pandas: to_json(path, orient='records', lines=True))"


def read_lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """An object a line, or one list of objects; each with its place."""
    if text.lstrip().startswith("["):
        return _items(f"{path}: item", _parse(text, str(path)))
    lines = enumerate(re.sub("\r\n?", "\n", text).split("\n"), start=1)
    parsed = ((f"{path}:{number}", _parse(line, f"{path}:{number}")) for number, line in lines if line.strip())
    return _objects(parsed)


def read_json(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read lines or a list like `read_lines`, or one object with the rows in one of its values."""
    whole = _only_object(path, text)
    if whole is None:
        return read_lines(path, text)
    lists = [key for key, value in whole.items() if _is_rows(value)]
    if len(lists) == 1:
        return _items(f"{path}: {lists[0]}, item", whole[lists[0]])
    if lists:
        raise at(str(path), f"is one object with several lists of objects ({', '.join(lists)}): leave the one of the "
                            "rows")  # fmt: skip
    if all(isinstance(value, dict | list) for value in whole.values()):
        raise at(str(path), f"is one object, and none of its values is a list of objects. {_HOW}")
    return _objects([(f"{path}:1", whole)])


def _only_object(path: Path, text: str) -> dict[str, Any] | None:
    """The file as one object; None where it is something else, such as several lines with an object each."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return _parse(text, str(path))
    except ConfigError:
        first, *others = text.strip().splitlines()
        if others and _is_json(first):
            return None
        raise


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _items(before: str, items: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return _objects((f"{before} {number}", item) for number, item in enumerate(items, start=1))


def _objects(entries: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise at(where, f"expected an object, found {json.dumps(entry)[:60]}")
        yield where, entry


class _Repeated(Exception):
    """A name that an object has twice: Python's reader would take the last value without a word."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(next(name for name in names if names.count(name) > 1))
    return values


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise at(where, f"is not JSON: {error.msg} ({line}column {error.colno})") from None
    except _Repeated as error:
        raise at(where, f"an object has the name {error.args[0]!r} twice") from None
    except ValueError:  # Python's own limit, the only other thing that it refuses
        raise at(where, "holds a number of thousands of digits") from None
    except RecursionError:
        raise at(where, "is nested too deeply") from None
