"""Judges what the columns of own files hold, over all of their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neobert.data.own.rows import Table, shown

NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?(?:Z|UTC|[-+]\d{2}:?\d{2}))?)?"
    r"|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}:\d{2}(?::\d{2})?"
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32,64}", re.IGNORECASE)
_UNNAMED = re.compile(r"\s*|Unnamed: \d+(?:_level_\d+)?|__index_level_\d+__")
"""How pandas calls an index that was written without a name and read again."""
_ID_NAME = re.compile(r"(?i:(?:.*[_\W])?(?:id|ids|idx|index|guid|uid|uuid))|.*[a-z0-9](?:Id|ID)", re.ASCII)
_MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "<na>"))


@dataclass(frozen=True)
class Column:
    """One column: what kind of values it holds, and those that are not empty."""

    name: str
    kind: str
    filled: list[Any]

    @property
    def is_text(self) -> bool:
        return self.kind == "text"

    @property
    def may_hold_text(self) -> bool:
        """True for texts in a form that is not read: words in lists, or bytes."""
        return self.kind in ("lists or objects", "bytes") and any(map(_has_words, self.filled))

    @property
    def example(self) -> str:
        return shown(self.filled[0]) if self.filled else "nothing"

    @property
    def length(self) -> float:
        """Characters of a value on average."""
        return sum(len(str(value)) for value in self.filled) / max(len(self.filled), 1)

    @property
    def distinct(self) -> int:
        """How many different values it has."""
        return len(set(map(str, self.filled)))


def survey(tables: Sequence[Table]) -> dict[str, Column]:
    """The columns that all tables have, each judged over the rows of all."""
    first, *others = tables
    shared = [name for name in first.columns if all(name in table.columns for table in others)]
    return {name: _column(name, [row.cells.get(name) for table in tables for row in table.rows]) for name in shared}


def _column(name: str, values: list[Any]) -> Column:
    filled = [value for value in values if not _is_missing(value)]
    return Column(name, _kind(name, filled), filled)


def _kind(name: str, filled: list[Any]) -> str:
    """Return the first kind that all values fit. Everything else is text, so that no text is overlooked."""
    if _UNNAMED.fullmatch(name):
        return "unnamed"
    if not filled:
        return "empty"
    kinds: tuple[tuple[str, Callable[[Any], bool]], ...] = (
        ("lists or objects", lambda value: isinstance(value, dict | list)),
        ("bytes", lambda value: isinstance(value, bytes)),
        ("numbers", _is_number),
        ("true and false", _is_boolean),
        ("dates", _is_date),
        ("ids", lambda value: isinstance(value, str) and _UUID.fullmatch(value) is not None),
        ("ids", lambda value: _ID_NAME.fullmatch(name) is not None and not _has_blank(value)),
    )
    return next((kind for kind, fits in kinds if all(map(fits, filled))), "text")


def _is_missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and value.strip().lower() in _MISSING)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMBER.fullmatch(value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_date(value: Any) -> bool:
    """Accept dates as text, and the values of parquet that are neither text nor numbers."""
    if isinstance(value, str):
        return _DATE.fullmatch(value.strip()) is not None
    return not isinstance(value, int | float | dict | list | bytes)


def _has_words(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_words, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str | bytes)


def _has_blank(value: Any) -> bool:
    return any(map(str.isspace, str(value)))
