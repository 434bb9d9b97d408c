"""Columns of a table for reading: the text of each value, and what may happen to it where there is little room."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any

from rich.cells import cell_len

from slurm.results import MISSING, NULL, cell, key_cell
from slurm.wrapping import WIDTHS, clean, look

Write = Callable[[Any], str]
"""Turns a number into its text."""

DIGITS = 12  # of a setting, unless two values differ in later ones
DECIMALS = 4  # of a measured number, unless the smallest of its column would keep less than two digits
MOST_DECIMALS = 7
LONG = 10  # characters, beyond which a setting is written with an exponent
LARGEST = 1e9  # of a measured number that is written without an exponent


class Kind(Enum):
    NUMBER = "number"  # aligned right, never cut
    NAME = "name"  # an id, a state, a metric: never cut
    TEXT = "text"  # may lose its middle, as long as different texts still look different
    MESSAGE = "message"  # wraps below its row where it does not fit beside the other columns


@dataclass(frozen=True)
class Column:
    """A column of texts. Where width is no concern, in pipes and files, `plain` takes the place of `cells`."""

    name: str
    kind: Kind
    cells: tuple[str, ...]
    plain: tuple[str, ...]
    setting: bool = False  # moves above the table if it has one value, even where there is room
    axis: bool = False  # its name is a dotted key, of which the last part may do
    rank: int = 0  # 0: always shown; of the others the highest is dropped first
    styles: tuple[str, ...] = ()  # of its cells

    @cached_property
    def width(self) -> int:
        """The terminal cells that its longest text takes."""
        return max(map(cell_len, self.cells), default=0)


def axis(name: str, values: Sequence[Any], rank: int = 0) -> Column:
    """Values of an axis of the grid: two different ones never look the same."""
    write = _setting([value for value in values if _is_number(value)])
    texts = [str(value) if value is NULL else key_cell(value) for value in values]
    cells = _distinct(values, [write(v) if _is_number(v) else text for v, text in zip(values, texts, strict=True)])
    plain = _distinct(values, texts)
    words = [text for value, text in zip(values, cells, strict=True) if not _is_number(value)]
    numbers = len(words) < len(cells) and all(cell_len(word) <= WIDTHS[0] for word in words)
    kind = Kind.NUMBER if numbers else Kind.TEXT
    return Column(clean(name), kind, cells, plain, setting=True, axis=True, rank=rank)


def measured(name: str, values: Sequence[float | None], rank: int = 0, sign: str = "") -> Column:
    """Measured numbers, all with the same number of decimals."""
    write = _measured([value for value in values if value is not None])

    def column(write: Write) -> tuple[str, ...]:
        return tuple(MISSING if value is None else sign + write(value) for value in values)

    return Column(clean(name), Kind.NUMBER, column(write), column(cell), rank=rank)


def names(name: str, values: Sequence[Any], rank: int = 0, styles: Sequence[str] = ()) -> Column:
    """Ids, states, metrics, counts such as 2/3. Those with styles stay where they are if there is room."""
    cells = tuple(clean(cell(value)) for value in values)
    return Column(name, Kind.NAME, cells, cells, setting=not styles, rank=rank, styles=tuple(styles))


def messages(name: str, values: Sequence[str | None]) -> Column:
    """Prose. It has to be the last column."""
    cells = tuple(clean(value or "") for value in values)
    plain = tuple(text or MISSING for text in cells) if name else cells
    return Column(name, Kind.MESSAGE, cells, plain)


def _distinct(values: Iterable[Any], texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts, or JSON where two different values would look the same: 1 and "1", or 0.3 and 0.1 + 0.2."""
    exact = [_exact(value) for value in values]
    cells = tuple(map(clean, texts))
    return cells if len(set(map(look, cells))) == len(set(exact)) else tuple(exact)


def _exact(value: Any) -> str:
    return MISSING if value is None else str(value) if value is NULL else json.dumps(value, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _setting(numbers: Sequence[int | float]) -> Write:
    """Choose how to write the numbers of an axis: exactly, all with the same decimals, or all with an exponent."""
    exact = [_decimal(number) for number in numbers if _is_finite(number) and number]
    if not exact or all(isinstance(number, int) for number in numbers):
        return str
    places = max(0, *(-int(number.as_tuple().exponent) for number in exact))
    digits = max(len(number.as_tuple().digits) for number in exact)
    fixed, scientific = _decimals(places), _scientific(digits - 1)
    length, other = (max(len(write(number)) for number in exact) for write in (fixed, scientific))
    small = min(map(abs, exact)) < Decimal("1e-3")
    return scientific if other < length and (small or length > LONG) else fixed


def _decimal(number: int | float) -> Decimal:
    return Decimal(f"{number:.{DIGITS}g}" if isinstance(number, float) else number).normalize()


def _measured(numbers: Sequence[int | float]) -> Write:
    """Choose how to write measured numbers: four decimals, more for small ones, and an exponent beyond that."""
    finite = [number for number in numbers if _is_finite(number)]
    if all(isinstance(number, int) for number in numbers):
        return str
    sizes = [abs(number) for number in finite if number]
    if 1e4 <= max(sizes, default=0) < 1e15 and all(float(number).is_integer() for number in finite):
        return lambda number: f"{number:,.0f}"
    places = max([DECIMALS, *(1 - math.floor(math.log10(size)) for size in sizes if size < 1e-3)])
    if places > MOST_DECIMALS or max(sizes, default=0) >= LARGEST:
        return _scientific(DECIMALS - 1)
    return _decimals(places)


def _is_finite(number: int | float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _decimals(places: int) -> Write:
    return lambda number: f"{_signed(number):.{places}f}"


def _scientific(places: int) -> Write:
    def write(number: Any) -> str:
        mantissa, mark, exponent = f"{_signed(number):.{places}e}".partition("e")
        return f"{mantissa}e{int(exponent)}" if mark and number else mantissa  # nan and inf have no exponent

    return write


def _signed(number: Any) -> Any:
    """The number, exact where it is an integer; 0 has no sign."""
    return number + 0.0 if isinstance(number, float) else Decimal(number)
