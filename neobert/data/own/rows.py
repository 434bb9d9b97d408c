"""Rows of the user's own files, each with its place for messages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from neobert.config import ConfigError
from neobert.config.paths import why_missing
from neobert.data.examples import at
from neobert.data.own import delimited, objects, parquet

Quotes = Literal["csv", "none"]

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
SHEETS = (".xlsx", ".xls", ".ods")


@dataclass(frozen=True)
class Row:
    """One example as it stands in the file: text, or with JSON and parquet any value."""

    where: str
    cells: dict[str, Any]

    def text(self, name: str) -> str:
        """A cell as text; raises `ConfigError` where there is none. A number is as the file writes it (3.0, not 3)."""
        if name not in self.cells:
            raise at(self.where, f"has no {name}; it holds {', '.join(self.cells)}")
        value = self.cells[name]
        if isinstance(value, str):
            return self._encodable(value, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise at(self.where, f"{name} is {shown(value)}, expected text or a number")
        return repr(value)

    def label(self, name: str) -> str:
        """A label as text, without blanks around it; empty where there is none."""
        value = self.cells.get(name)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        return self.text(name).strip()

    def _encodable(self, value: str, name: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise at(self.where, rf"{name} holds half a character (\u{ord(value[error.start]):x})") from None
        return value


@dataclass(frozen=True)
class Table:
    """All rows of a file."""

    path: Path
    rows: list[Row]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order of the file. Objects of JSON need not all have the same."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.cells))


def read_table(path: Path, quotes: Quotes | None = None) -> Table:
    """All rows of a file, by its ending; raises `ConfigError` with file and line for a malformed one."""
    readers = {
        ".csv": lambda: delimited.read_csv(path, _text(path)),
        ".tsv": lambda: delimited.read_tsv(path, _text(path), quotes),
        ".json": lambda: objects.read_json(path, _text(path)),
        ".jsonl": lambda: objects.read_lines(path, _text(path)),
        ".parquet": lambda: parquet.read(path),
    }
    ending = path.suffix.lower()
    if ending not in readers:
        raise at(str(path), _wrong_ending(ending))
    rows = [Row(where, cells) for where, cells in readers[ending]()]
    if not rows:
        raise at(str(path), "holds no examples")
    return Table(path, rows)


def shown(value: Any) -> str:
    """A value for messages, in short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unreadable(path: Path, error: OSError) -> ConfigError:
    return at(str(path), f"cannot be read: {error.strerror or error}{why_missing(path)}")


def _wrong_ending(ending: str) -> str:
    hint = ""
    if ending in COMPRESSED:
        hint = ". Unpack it first"
    elif ending in SHEETS:
        hint = ". Save the sheet as CSV (UTF-8)"
    elif ending == ".txt":
        hint = ". Its rows need columns: write a .csv or .tsv with a first line that names them, such as text,label"
    return f"ends in {ending or 'nothing'}; expected one of {', '.join(ENDINGS)}{hint}"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # as bytes, so that line ends stay as they are
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise at(str(path), f"is not UTF-8 text (byte {error.start})") from None
