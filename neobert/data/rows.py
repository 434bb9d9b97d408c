"""Rows of csv, tsv, json and jsonl files, each with its place for messages."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from neobert.data.examples import at


@dataclass(frozen=True)
class Row:
    """One example as it stands in the file: text, or with JSON any value."""

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
            raise at(self.where, f"{name} is {json.dumps(value)[:60]}, expected text or a number")
        return repr(value)

    def _encodable(self, value: str, name: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise at(self.where, rf"{name} holds half a character (\u{ord(value[error.start]):x})") from None
        return value


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, by its ending; raises `ConfigError` with file and line for a malformed one."""
    rows = list(_rows(path))
    if not rows:
        raise _empty(path)
    return rows


def first_row(path: Path) -> Row:
    """The first of them, which has the columns; the others may be malformed."""
    row = next(_rows(path), None)
    if row is None:
        raise _empty(path)
    return row


def _empty(path: Path) -> ConfigError:
    return at(str(path), "holds no examples")


def _rows(path: Path) -> Iterator[Row]:
    readers = {".csv": _delimited, ".tsv": _delimited, ".json": _json, ".jsonl": _json}
    if path.suffix.lower() not in readers:
        raise at(str(path), f"ends in {path.suffix or 'nothing'}; expected one of {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise at(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise at(str(path), f"is not UTF-8 text (byte {error.start})") from None
    return readers[path.suffix.lower()](path, text)


def _delimited(path: Path, text: str) -> Iterator[Row]:
    """Blank lines are skipped; the first other one names the columns."""
    tabs = path.suffix.lower() == ".tsv"
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", strict=True,
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    header: list[str] | None = None
    try:
        for cells in filter(None, reader):
            where = f"{path}:{reader.line_num}"
            if header is None:
                header = cells
                repeated = [name for name in header if header.count(name) > 1]
                if repeated:
                    raise at(where, f"two columns are named {repeated[0]!r}; give each a name of its own")
            elif len(cells) != len(header):
                raise at(where, f"expected {len(header)} columns ({', '.join(header)}), found {len(cells)}")
            else:
                yield Row(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise at(f"{path}:{reader.line_num}", f"is malformed: {error}") from None


def _json(path: Path, text: str) -> Iterator[Row]:
    """An object a line, or one array of objects."""
    if text.lstrip().startswith("["):
        entries = [(f"{path}: item {n}", item) for n, item in enumerate(_parse(text, str(path)), start=1)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        entries = [(f"{path}:{n}", _parse(line, f"{path}:{n}")) for n, line in lines if line.strip()]
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise at(where, f"expected an object, found {json.dumps(entry)[:60]}")
        yield Row(where, entry)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise at(where, f"is not JSON: {error.msg} (column {error.colno})") from None
    except ValueError:  # Python's own limit, the only other thing that it refuses
        raise at(where, "holds a number of thousands of digits") from None
    except RecursionError:
        raise at(where, "is nested too deeply") from None
