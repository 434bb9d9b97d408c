"""A table in a terminal of some width: which columns are shown, how wide, and what moves above or is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from slurm.columns import Column, Kind
from slurm.wrapping import name_width, narrowest, shortened

GAP = 2  # cells between columns
MANY = 10  # lines of a header, where two are not enough


@dataclass(frozen=True)
class Fitted:
    """A table that fits. Without `widths` there is too little room for one, and its rows become blocks."""

    folded: tuple[tuple[str, str], ...]  # names and values of columns that have one value
    columns: tuple[Column, ...]
    widths: tuple[int, ...] | None  # without that of a column of messages, which is the last and takes what is left
    dropped: tuple[str, ...] = ()


def fit(columns: Sequence[Column], width: int) -> Fitted:
    """Make a table fit `width` cells without cutting a number, an id, a state or the name of a metric.

    Settings with one value move above the table. Then, as long as it is too wide: other columns with one value move
    there as well, headers take two lines, texts lose their middle, headers take more lines, the least important columns
    are dropped, and at last rows become blocks.
    """
    columns = _short_names(_once(columns))
    if len(columns[0].cells) == 1 and _fits(columns, width):
        return Fitted((), columns, _natural(columns))
    folded, columns = _fold(columns, lambda column: column.setting)
    if not _fits(columns, width):
        more, columns = _fold(columns, lambda column: bool(column.name) and column.kind is not Kind.MESSAGE)
        folded += more
    for kept in _fewer(columns):
        widths = _widths(kept, width)
        if widths is not None:
            break
    dropped = tuple(column.name for column in columns if column not in kept)
    shown = kept if widths is None else tuple(map(_shorten, kept, (*widths, 0)))
    return Fitted(folded, shown, widths, dropped)


def total(widths: Sequence[int]) -> int:
    """The width of a table with columns of these widths."""
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _once(columns: Sequence[Column]) -> list[Column]:
    """Leave out columns that are empty, or repeat another one, such as the score among the metrics."""
    different: dict[object, Column] = {}
    for column in columns:
        if any(column.cells) or not column.cells:
            different.setdefault((column.name, column.cells), column)
    return list(different.values())


def _short_names(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Shorten `optimizer.lr` to `lr`, where no other column could be meant."""
    names = [column.name for column in columns]
    return tuple(replace(c, name=_short(c.name, names)) if c.axis else c for c in columns)


def _short(name: str, names: Sequence[str]) -> str:
    parts = name.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)


def _fold(
    columns: Sequence[Column], may: Callable[[Column], bool]
) -> tuple[tuple[tuple[str, str], ...], tuple[Column, ...]]:
    """Split off the columns that have one value, as names and values; of several rows, at least one column stays."""
    folds = [may(column) and len(set(column.cells)) == 1 for column in columns]
    if all(folds) and len(columns[0].cells) > 1:
        folds[0] = False
    pairs = tuple((c.name, c.cells[0]) for c, folding in zip(columns, folds, strict=True) if folding)
    return pairs, tuple(c for c, folding in zip(columns, folds, strict=True) if not folding)


def _fewer(columns: Sequence[Column]) -> Iterator[tuple[Column, ...]]:
    """Yield all columns, and then fewer and fewer, without those that may be dropped."""
    kept = list(columns)
    yield tuple(kept)
    for column in sorted(columns, key=lambda column: (column.rank, column.width), reverse=True):
        if column.rank:
            kept.remove(column)
            yield tuple(kept)


def _fits(columns: Sequence[Column], width: int) -> bool:
    return total(_natural(columns)) <= width


def _natural(columns: Sequence[Column]) -> tuple[int, ...]:
    return tuple(max(cell_len(c.name), c.width) for c in columns if c.kind is not Kind.MESSAGE)


def _widths(columns: Sequence[Column], width: int) -> tuple[int, ...] | None:
    """Choose the width of each column; None if there is too little room for them."""
    columns = [column for column in columns if column.kind is not Kind.MESSAGE]
    widths = list(_natural(columns))
    for lines in (2, MANY):
        headers = [name_width(column.name, lines) for column in columns]
        _break_headers(widths, [max(pair) for pair in zip(headers, (c.width for c in columns), strict=True)], width)
        _shrink(widths, [max(pair) for pair in zip(headers, map(_least, columns), strict=True)], width)
    return tuple(widths) if total(widths) <= width else None


def _break_headers(widths: list[int], lower: Sequence[int], width: int) -> None:
    """Make columns as narrow as their values, beginning with the one that gains most, until the table fits."""
    for index in sorted(range(len(widths)), key=lambda index: lower[index] - widths[index]):
        if total(widths) > width:
            widths[index] = min(widths[index], lower[index])


def _shrink(widths: list[int], least: Sequence[int], width: int) -> None:
    """Make the widest columns narrower, as far as their texts may lose their middle, until the table fits."""
    while total(widths) > width:
        wide = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not wide:
            return
        widths[max(wide, key=widths.__getitem__)] -= 1


def _least(column: Column) -> int:
    return narrowest(column.cells) if column.kind is Kind.TEXT else column.width


def _shorten(column: Column, width: int) -> Column:
    if column.kind is not Kind.TEXT or column.width <= width:
        return column
    tries = (shortened(column.cells, fewer) for fewer in range(width, 0, -1))
    return replace(column, cells=next(cells for cells in tries if cells is not None))
