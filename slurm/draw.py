"""The lines of a table, for a terminal that it was made to fit, and for pipes and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.text import Text

from slurm.columns import Column, Kind
from slurm.fit import GAP, fit, total
from slurm.wrapping import flow, name_lines, wrap

NARROWEST = 20  # cells; a narrower terminal breaks the lines itself
INDENT = " " * GAP


def whole(columns: Sequence[Column]) -> list[Text]:
    """Draw all columns, as wide as they are: a line for each row."""
    columns = [replace(column, cells=column.plain) for column in columns]
    widths = list(map(_width, columns))
    head = _line(columns, widths, [column.name for column in columns], ["dim"] * len(columns))
    cells = zip(*(column.cells for column in columns), strict=True)
    return [head, *(_line(columns, widths, texts, _styles(columns, row)) for row, texts in enumerate(cells))]


def fitted(columns: Sequence[Column], width: int, more: str) -> list[Text]:
    """Draw a table in at most `width` cells; `more` says how to see the columns that it has no room for."""
    width = max(width, NARROWEST)
    table = fit(columns, width)
    lines = _texts(flow((f"{name} {value}" for name, value in table.folded), width))
    lines += _blocks(table.columns, width) if table.widths is None else _table(table.columns, table.widths, width)
    if table.dropped:
        lines += _texts(wrap(f"not shown: {', '.join(table.dropped)} ({more})", width), "dim")
    return lines


def wrapped(text: Text, width: int) -> Iterator[Text]:
    """Break a text of many words into lines of at most `width` cells."""
    end = 0
    for line in wrap(text.plain, max(width, NARROWEST)):
        start = text.plain.index(line, end)
        end = start + len(line)
        yield text[start:end]


def _table(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[Text]:
    shown = [column for column in columns if column.kind is not Kind.MESSAGE]
    messages = next((column for column in columns if column.kind is Kind.MESSAGE), None)
    below: Sequence[str] = [""] * len(columns[0].cells) if columns else []
    if messages is not None:
        beside, below = _beside(messages, width - total([*widths, 0]))
        if any(beside.cells):
            shown, widths = [*shown, beside], [*widths, _width(beside)]
    lines = _header(shown, widths) if shown else []
    for row, message in enumerate(below):
        if shown:
            lines.append(_line(shown, widths, [column.cells[row] for column in shown], _styles(shown, row)))
        lines += _texts(INDENT + part for part in wrap(message, width - GAP) if part)
    return lines


def _beside(messages: Column, room: int) -> tuple[Column, list[str]]:
    """Split messages into those with room beside the other columns and those that go below their rows."""
    fits = [max(cell_len(text), cell_len(messages.name)) <= room for text in messages.cells]
    beside = tuple(text if fitting else "" for text, fitting in zip(messages.cells, fits, strict=True))
    name = f"{messages.name}: " if messages.name else ""
    below = ["" if fitting or not text else name + text for text, fitting in zip(messages.cells, fits, strict=True)]
    return replace(messages, cells=beside), below


def _header(columns: Sequence[Column], widths: Sequence[int]) -> list[Text]:
    """The names, on several lines where one is longer than its column is wide."""
    names = [name_lines(column.name, width) for column, width in zip(columns, widths, strict=True)]
    height = max(map(len, names))
    lines = zip(*([""] * (height - len(name)) + name for name in names), strict=True)
    return [_line(columns, widths, texts, ["dim"] * len(columns)) for texts in lines]


def _line(columns: Sequence[Column], widths: Sequence[int], texts: Sequence[str], styles: Sequence[str]) -> Text:
    line = Text(no_wrap=True, overflow="ignore")
    for column, width, text, style in zip(columns, widths, texts, styles, strict=True):
        pad = " " * (width - cell_len(text))
        line.append(INDENT if line else "").append(pad if column.kind is Kind.NUMBER else "")
        line.append(text, style).append("" if column.kind is Kind.NUMBER else pad)
    line.rstrip()
    return line


def _styles(columns: Sequence[Column], row: int) -> list[str]:
    return [column.styles[row] if column.styles else "" for column in columns]


def _blocks(columns: Sequence[Column], width: int) -> list[Text]:
    """Draw a line for each value, and an empty one between rows."""
    pad = min(max(cell_len(column.name) for column in columns), width // 2)
    lines: list[Text] = []
    for row in range(len(columns[0].cells)):
        lines += _texts([""] if row else [])
        for column in columns:
            style = column.styles[row] if column.styles else ""
            lines += _texts(_pair(column.name, column.cells[row], pad, width), style)
    return lines


def _pair(name: str, value: str, pad: int, width: int) -> list[str]:
    """`name  value`, with what does not fit on lines of its own."""
    if not name or not value:
        return wrap(value, width) if value else []
    line = name + " " * (pad - cell_len(name)) + INDENT + value
    if cell_len(line) <= width:
        return [line]
    return [*wrap(name, width), *(INDENT + line for line in wrap(value, width - GAP))]


def _width(column: Column) -> int:
    return max(cell_len(column.name), column.width)


def _texts(lines: Iterable[str], style: str = "") -> list[Text]:
    return [Text(line, style, no_wrap=True, overflow="ignore") for line in lines]
