"""A table in a terminal of some width: which columns are shown, how wide, and what moves above or is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from slurm.columns import Column, Kind
from slurm.wrapping import narrowest, shortened, two_lines

GAP = 2  # cells between columns


@dataclass(frozen=True)
class Fitted:
    """A table that fits. Without `widths` there is too little room for one, and its rows become blocks."""

    folded: tuple[tuple[str, str], ...]  # names and values of columns that have one value
    columns: tuple[Column, ...]
    widths: tuple[int, ...] | None  # without that of a column of messages, which is the last and takes what is left
    dropped: tuple[str, ...] = ()


def fit(columns: Sequence[Column], width: int) -> Fitted:
    """Make a table fit `width` cells without cutting a number, an id, a state or the name of a metric.

    Columns with one value move above the table. Then, as long as it is too wide: headers take two lines, texts lose
    their middle, the least important columns are dropped, rows become blocks.
    """
    columns = _short_names(_once(columns))
    if len(columns[0].cells) == 1 and _fits(columns, width):
        return Fitted((), columns, _natural(columns))
    folded, columns = _fold(columns, lambda column: column.setting)
    if not _fits(columns, width):
        more, columns = _fold(columns, lambda column: bool(column.name) and column.kind is not Kind.MESSAGE)
        folded += more
    tries = [(kept, _widths(kept, width)) for kept in _fewer(columns)]
    kept, widths = next((pair for pair in tries if pair[1] is not None), tries[-1])
    dropped = tuple(column.name for column in columns if column not in kept)
    shown = kept if widths is None else tuple(map(_shorten, kept, (*widths, 0)))
    return Fitted(folded, shown, widths, dropped)


def total(widths: Sequence[int]) -> int:
    """The width of a table with columns of these widths."""
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _once(columns: Sequence[Column]) -> list[Column]:
    """Without columns that are empty, or repeat another one, such as the score among the metrics."""
    different: dict[object, Column] = {}
    for column in columns:
        if any(column.cells) or not column.cells:
            different.setdefault((column.name, column.cells), column)
    return list(different.values())


def _short_names(columns: Sequence[Column]) -> tuple[Column, ...]:
    """With `lr` for `optimizer.lr`, where no other column could be meant."""
    names = [column.name for column in columns]
    return tuple(replace(c, name=_short(c.name, names)) if c.axis else c for c in columns)


def _short(name: str, names: Sequence[str]) -> str:
    parts = name.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)


def _fold(
    columns: Sequence[Column], may: Callable[[Column], bool]
) -> tuple[tuple[tuple[str, str], ...], tuple[Column, ...]]:
    """Names and values of the columns that have one value, and the other columns; at least one for several rows."""
    folds = [may(column) and len(set(column.cells)) == 1 for column in columns]
    if all(folds) and len(columns[0].cells) > 1:
        folds[0] = False
    pairs = tuple((c.name, c.cells[0]) for c, folding in zip(columns, folds, strict=True) if folding)
    return pairs, tuple(c for c, folding in zip(columns, folds, strict=True) if not folding)


def _fewer(columns: Sequence[Column]) -> Iterator[tuple[Column, ...]]:
    """All columns, and then without one after another of those that may be dropped."""
    kept = list(columns)
    yield tuple(kept)
    for column in sorted(columns, key=lambda column: (column.rank, _cells(column)), reverse=True):
        if column.rank:
            kept.remove(column)
            yield tuple(kept)


def _fits(columns: Sequence[Column], width: int) -> bool:
    return total(_natural(columns)) <= width


def _natural(columns: Sequence[Column]) -> tuple[int, ...]:
    return tuple(max(cell_len(c.name), _cells(c)) for c in columns if c.kind is not Kind.MESSAGE)


def _cells(column: Column) -> int:
    return max(map(cell_len, column.cells), default=0)


def _header(column: Column) -> int:
    return max(map(cell_len, two_lines(column.name)))


def _widths(columns: Sequence[Column], width: int) -> tuple[int, ...] | None:
    """How wide each column is where there is little room; None if there is too little."""
    columns = [column for column in columns if column.kind is not Kind.MESSAGE]
    widths = list(_natural(columns))
    lower = [max(_header(column), _cells(column)) for column in columns]
    for index in sorted(range(len(widths)), key=lambda index: lower[index] - widths[index]):
        if total(widths) > width:
            widths[index] = lower[index]
    if total(widths) > width:
        _shrink(widths, [max(_header(column), _least(column)) for column in columns], total(widths) - width)
    return tuple(widths) if total(widths) <= width else None


def _shrink(widths: list[int], least: Sequence[int], cells: int) -> None:
    """Take so many cells from the widest columns, as long as they may shrink."""
    for _ in range(cells):
        wide = [index for index in range(len(widths)) if widths[index] > least[index]]
        if wide:
            widths[max(wide, key=widths.__getitem__)] -= 1


def _least(column: Column) -> int:
    return narrowest(column.cells) if column.kind is Kind.TEXT else _cells(column)


def _shorten(column: Column, width: int) -> Column:
    if column.kind is not Kind.TEXT or _cells(column) <= width:
        return column
    tries = (shortened(column.cells, fewer) for fewer in range(width, 0, -1))
    return replace(column, cells=next(cells for cells in tries if cells is not None))
