"""Grids: products, keys that vary together, points left out and added, explicit lists."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neobert.config import ConfigError
from slurm.grid import expand


def values(grid: Any) -> list[dict[str, Any]]:
    return [point.values for point in expand(grid)]


def test_no_grid_is_one_point_without_values() -> None:
    assert values(None) == [{}]


def test_the_last_axis_varies_fastest() -> None:
    assert values({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_keys_with_commas_between_them_vary_together() -> None:
    grid = {"lr, epochs": [[1, 10], [2, 5]], "seed": [0]}
    assert values(grid) == [{"lr": 1, "epochs": 10, "seed": 0}, {"lr": 2, "epochs": 5, "seed": 0}]


def test_exclude_leaves_out_every_point_that_agrees_and_include_adds_points() -> None:
    grid = {"a": [1, 2], "b": [3, 4], "exclude": [{"a": 1, "b": 4}, {"a": 2}], "include": [{"a": 9, "c": 1}]}
    assert values(grid) == [{"a": 1, "b": 3}, {"a": 9, "c": 1}]


def test_a_list_is_the_points_themselves() -> None:
    assert values([{"a": 1}, {"b": 2}]) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "is empty: it gives no trial"),
        ([], "is empty: it gives no trial"),
        ({"a": []}, "grid.a: is empty"),
        ({"a": 3}, "grid.a: expected a list of values, found 3"),
        ({"a": [1], "exclude": [{"a": 1}]}, "is empty"),
        ({"a": [1], "exclude": [{"b": 1}]}, r"grid\.exclude\[0\]: 'b' is no axis"),
        ({"a": [1], "exclude": {"a": 1}}, "expected a list of points"),
        ({"a": [1], "include": [3]}, r"grid\.include\[0\]: expected a point such as"),
        ({"a, b": [[1]]}, r"grid\.a, b\[0\]: expected a row of 2 values"),
        ({"a, b": [1, 2]}, "expected a row of 2 values"),
        ({"a": [1], "a, b": [[1, 2]]}, "'a' stands in two axes"),
        ({"a,": [[1, 2]]}, "is no dotted key"),
        ({"a..b": [1]}, "is no dotted key"),
        ([{}], "expected a point"),
        ([{1: 2}], "expected a point"),
        ({"include": [{1: 2}]}, "expected a point"),
    ],
)
def test_a_wrong_grid_is_an_error(grid: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(grid)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=4
    )
)
def test_a_product_has_every_combination_once_in_order(axes: dict[str, list[int]]) -> None:
    points = values(axes)
    assert len(points) == math.prod(map(len, axes.values()))
    indices = [tuple(point[key] for key in axes) for point in points]
    expected = [()]
    for key in axes:
        expected = [(*left, value) for left in expected for value in axes[key]]
    assert indices == expected


def test_a_grid_of_more_points_than_any_queue_takes_is_refused_before_it_is_expanded() -> None:
    grid = {f"a{number}": list(range(10)) for number in range(9)}
    with pytest.raises(ConfigError, match=r"grid: has 10 x .* = 1,000,000,000 points; at most 100,000 can be planned"):
        expand(grid)
