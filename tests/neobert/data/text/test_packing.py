"""Rows hold all pieces, and little else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neobert.data.text.packing import bucket, pack


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_piece_is_in_one_row_and_no_row_is_too_long(lengths: list[int]) -> None:
    sizes = np.array(lengths, np.int64)
    for arrange, cost in ((pack, lambda row: sizes[row].sum()), (bucket, lambda row: sizes[row].max() * len(row))):
        rows = arrange(sizes, 64)
        assert sorted(piece for row in rows for piece in row) == list(range(len(lengths)))
        assert all(cost(row) <= 64 for row in rows)


def test_rows_of_mixed_lengths_are_nearly_full() -> None:
    sizes = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 4000), 3, 1024).astype(np.int64)
    assert sizes.sum() / (len(pack(sizes, 1024)) * 1024) > 0.99


def test_no_fewer_rows_would_do_where_that_can_be_told() -> None:
    assert len(pack(np.array([60, 60, 40, 40, 30, 30, 40]), 100)) == 3


@pytest.mark.parametrize("arrange", [pack, bucket])
def test_a_piece_that_is_too_long_is_refused(arrange: object) -> None:
    with pytest.raises(ValueError, match="65 tokens does not fit into"):
        arrange(np.array([65]), 64)  # type: ignore[operator]
