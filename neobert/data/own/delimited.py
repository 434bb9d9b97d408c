"""Reads .csv and .tsv: rows of fields, which quotes may enclose.

In a .csv quotes enclose fields. In a .tsv they may as well be part of the text, as in GLUE's own files, so the file
itself has to show which it is, or `data.quotes` says so.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from neobert.config import ConfigError
from neobert.data.examples import at

Lines = list[tuple[int, list[str]]]
"""The fields of each row that is not blank, with the number of the line where it ends."""

_LONE_CR = re.compile(r"\r(?!\n)")
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")


class Malformed(Exception):
    """A row that is not as csv writers write it."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line = line


def read_csv(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .csv, each with its place. A line break inside a text is read as a newline."""
    lines = _enclosed_or_error(path, text, ",")
    if "\r" in text:
        lines = [(number, [re.sub("\r\n?", "\n", cell) for cell in cells]) for number, cells in lines]
    return _named(path, lines)


def read_tsv(path: Path, text: str, quotes: Literal["csv", "none"] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .tsv, each with its place. `quotes` decides, where the file does not show, what quotes mean."""
    if quotes == "csv":
        return _named(path, _enclosed_or_error(path, text, "\t"))
    if quotes == "none" or '"' not in text:
        return _named(path, _literal(text))
    return _named(path, _decided(path, text))


def _named(path: Path, lines: Lines) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row by the names of its columns, which the first row has."""
    if not lines:
        return
    (line, header), *rows = lines
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise at(f"{path}:{line}", f"two columns are named {repeated[0]!r}; give each a name of its own")
    for number, cells in rows:
        where = f"{path}:{number}"
        if len(cells) != len(header):
            raise at(where, f"expected {len(header)} columns ({', '.join(header)}), found {len(cells)}")
        yield where, dict(zip(header, cells, strict=True))


# -- the two ways to read fields --------------------------------------------------------------------------------------


def _literal(text: str) -> Lines:
    """Every character but tabs and line ends is part of a field."""
    lines = (text if "\n" in text else text.replace("\r", "\n")).split("\n")
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1))
    return [(number, line.split("\t")) for number, line in numbered if line]


def _enclosed(text: str, delimiter: str) -> Lines:
    """Fields may be enclosed in quotes. A carriage return by itself ends no row where others end at newlines."""
    mark = _unused_character(text) if "\n" in text and _LONE_CR.search(text) else None
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    source = io.StringIO(text if mark is None else _LONE_CR.sub(mark, text), newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise Malformed(reader.line_num, str(error)) from None
    if mark is None:
        return lines
    return [(number, [cell.replace(mark, "\r") for cell in cells]) for number, cells in lines]


def _unused_character(text: str) -> str:
    used = set(text)
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in used)


def _enclosed_or_error(path: Path, text: str, delimiter: str) -> Lines:
    try:
        return _enclosed(text, delimiter)
    except Malformed as error:
        raise at(f"{path}:{error.line}", f"is malformed: {error}") from None


# -- which of them a .tsv with quotes is meant for --------------------------------------------------------------------


class _Sign(Enum):
    NONE = "no quote in the field"
    NUMBER = "no quote in the field, which is a number: a writer that quotes all texts leaves those as they are"
    TEXT = "quotes inside a field without quotes around it: no csv writer leaves them so"
    CSV = "quotes around a field that needs them"
    EITHER = "quotes around a field that does not need them"


def _decided(path: Path, text: str) -> Lines:
    """The reading that the file itself shows to be meant; raises `ConfigError` where both are possible."""
    literal = _literal(text)
    try:
        enclosed = _enclosed(text, "\t")
    except Malformed:
        return literal
    if not _is_even(enclosed):
        return literal
    if not _is_even(literal):
        return enclosed
    if [cells for _, cells in literal] == [cells for _, cells in enclosed]:
        return literal
    if len(literal) != len(enclosed):
        raise _undecided(path, literal, enclosed)
    return _by_signs(path, literal, enclosed)


def _is_even(lines: Lines) -> bool:
    return len({len(cells) for _, cells in lines}) == 1


def _by_signs(path: Path, literal: Lines, enclosed: Lines) -> Lines:
    """Compares field by field what both readings make of it."""
    signs = {
        _sign(raw, value)
        for (_, raws), (_, values) in zip(literal, enclosed, strict=True)
        for raw, value in zip(raws, values, strict=True)
    }
    if _Sign.TEXT not in signs and (_Sign.EITHER not in signs or _Sign.NONE not in signs):
        return enclosed
    if _Sign.TEXT in signs and _Sign.CSV not in signs:
        return literal
    raise _undecided(path, literal, enclosed)


def _sign(raw: str, value: str) -> _Sign:
    if '"' not in raw:
        return _Sign.NUMBER if _NUMBER.fullmatch(raw) else _Sign.NONE
    if raw == value:
        return _Sign.TEXT
    return _Sign.CSV if set(value) & set('"\r\t\n') else _Sign.EITHER


def _undecided(path: Path, literal: Lines, enclosed: Lines) -> ConfigError:
    pairs = zip(literal, enclosed, strict=False)
    number, raws, values = next((number, raws, values) for (number, raws), (_, values) in pairs if raws != values)
    raw = next((raw for raw, value in zip(raws, values, strict=False) if raw != value), "\t".join(raws))
    shown = raw if len(raw) <= 60 else f"{raw[:57]}..."
    return at(
        f"{path}:{number}", f"the quotes in {shown} can be part of the text, or enclose it as in a csv file. Set "
        "data.quotes: none if they are text, or csv if they enclose fields (as pandas writes them)"
    )  # fmt: skip
