"""Tables in terminals of any width: nothing is cut that must not be, and nothing goes missing in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from slurm import columns
from slurm.columns import Column, Kind
from slurm.draw import fitted
from slurm.fit import fit
from slurm.results import NULL
from slurm.wrapping import look, shortened

WIDTHS = (40, 60, 80, 100, 120, 200)
PATHS = [f"/nfs/projects/encoders/checkpoints/pretraining/neobert-base-{step}/model" for step in (90000, 100000)]


def lines(table: Sequence[Column], width: int) -> list[str]:
    return [line.plain for line in fitted(table, width, "a wider terminal shows them")]


def stands_in(text: str, printed: Sequence[str]) -> bool:
    """Return whether a text stands in one of the lines, with nothing but spaces around it."""
    return any(re.search(rf"(?<!\S){re.escape(text)}(?!\S)", line) for line in printed)


# --------------------------------------------------------------------------------------------------------- any table

number = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0001, 0.0003, 1e-5, 12345678, -0.5, 0.1 + 0.2, 0.3, 1, 0]),
)
word = st.text("abcdefgh0123456789_.-/", min_size=1, max_size=20)
text = st.one_of(
    word,
    st.text(max_size=80),
    st.text("数据集é\u0301\u200d🙂👩 a", max_size=40),
    st.builds("/models/{}/checkpoint-{}/{}".format, word, st.integers(0, 10**6), word),
    st.sampled_from(PATHS),
)
value = st.one_of(number, text, st.booleans(), st.none(), st.just(NULL), st.lists(st.integers(), max_size=8))
key = st.lists(st.text("abcdefgh_", min_size=1, max_size=25), min_size=1, max_size=3).map(".".join)
metric = st.text("abcdefgh_./:数据", min_size=1, max_size=60)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[Any]], list[Column]]:
    """The values of some axes, and the columns of a table that has them."""
    rows = draw(st.integers(1, 5))

    def cells(one: st.SearchStrategy[Any]) -> list[Any]:
        few = draw(st.lists(one, min_size=1, max_size=3))  # so that some columns have one value
        return draw(st.lists(st.sampled_from(few), min_size=rows, max_size=rows))

    keys = draw(st.lists(key, max_size=8, unique=True))
    values = [cells(draw(st.sampled_from([number, text, value]))) for _ in keys]
    metrics = draw(st.lists(metric, max_size=30, unique=True))
    return values, [
        *map(columns.axis, keys, values),
        columns.names("state", cells(st.sampled_from(["done", "failed", "out of memory", "not submitted"]))),
        *(columns.measured(name, cells(st.none() | st.floats()), rank) for rank, name in enumerate(metrics)),
        columns.messages(draw(st.sampled_from(["", "missing"])), cells(text)),
    ]


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(WIDTHS) | st.integers(40, 250))
def test_a_table_fits_and_every_number_is_whole(table: tuple[list[list[Any]], list[Column]], width: int) -> None:
    printed = lines(table[1], width)
    assert max(map(cell_len, printed)) <= width
    for column in fit(table[1], width).columns:
        if column.kind in (Kind.NUMBER, Kind.NAME):
            assert all(stands_in(cell.strip(), printed) for cell in column.cells)


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(WIDTHS) | st.integers(40, 250))
def test_every_column_is_shown_or_above_the_table_or_named(
    table: tuple[list[list[Any]], list[Column]], width: int
) -> None:
    shown = fit(table[1], width)
    different = {(column.name, column.cells) for column in table[1] if any(column.cells)}
    assert len(different) == len(shown.columns) + len(shown.folded) + len(shown.dropped)
    printed = "".join("".join(lines(table[1], width)).split())
    for part in [*(name + cell for name, cell in shown.folded), *shown.dropped]:
        assert "".join(part.split()) in printed


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(WIDTHS) | st.integers(40, 250))
def test_different_points_look_different(table: tuple[list[list[Any]], list[Column]], width: int) -> None:
    points = {tuple(map(repr, point)) for point in zip(*table[0], strict=True)}
    axes = [column.cells for column in fit(table[1], width).columns if column.axis]
    assert len({tuple(map(look, row)) for row in zip(*axes, strict=True)}) == len(points) or len(points) == 1


@given(st.lists(number, min_size=1, max_size=6))
def test_numbers_of_an_axis_can_be_read_back(numbers: list[float]) -> None:
    for one, cell in zip(numbers, columns.axis("lr", numbers).cells, strict=True):
        assert float(cell) == pytest.approx(one, rel=1e-11, nan_ok=True)


@given(st.lists(text | number, min_size=2, max_size=6), st.integers(12, 60))
def test_a_text_is_shortened_to_the_width_or_not_at_all(values: list[Any], width: int) -> None:
    texts = columns.axis("name", values).cells
    shorter = shortened(texts, width)
    if shorter is not None:
        assert max(map(cell_len, shorter)) <= width
        assert len(set(map(look, shorter))) == len(set(map(look, texts)))
