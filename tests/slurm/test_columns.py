"""How the values of a column are written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from slurm.columns import Kind, axis, measured, messages
from slurm.results import NULL


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1e-4, 3e-4], ("1e-4", "3e-4")),
        ([1e-5, 1.5e-5, 1e-4], ("1.0e-5", "1.5e-5", "1.0e-4")),
        ([0.1, 0.25, 1], ("0.10", "0.25", "1.00")),
        ([0.001, 100.0], ("0.001", "100.000")),
        ([1e-5, 0.1], ("1e-5", "1e-1")),
        ([1, 20, 12345678], ("1", "20", "12345678")),
        ([-0.5, 0.0, 0.5], ("-0.5", "0.0", "0.5")),
        ([-1e-5, 0, 1e-5], ("-1e-5", "0", "1e-5")),
        ([1e9, 2.5e10], ("1.0e9", "2.5e10")),
        ([0.1 * 3], ("0.3",)),
        ([0.1 * 3, 0.3], ("0.30000000000000004", "0.3")),
        ([math.nan, math.inf, 0.5], ("nan", "inf", "0.5")),
        ([1e-4, None], ("1e-4", "—")),
        ([10**400, 0.5], ("1e400", "5e-1")),
    ],
)
def test_numbers_of_an_axis_are_exact_and_share_their_precision(values: list[Any], cells: tuple[str, ...]) -> None:
    column = axis("lr", values)
    assert column.cells == cells
    assert column.kind is Kind.NUMBER


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([None, NULL], ("—", "null")),
        ([NULL, "null"], ("null", '"null"')),
        ([1, "1"], ("1", '"1"')),
        (["a", "a "], ('"a"', '"a "')),
        (["a b", "a\nb"], ('"a b"', '"a\\nb"')),
        (["\u00e9", "e\u0301"], ('"\\u00e9"', '"e\\u0301"')),
        ([True, [1, 2], "all"], ("True", "[1, 2]", "all")),
    ],
)
def test_two_different_values_of_an_axis_never_look_the_same(values: list[Any], cells: tuple[str, ...]) -> None:
    assert axis("key", values).cells == cells


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.61234, 0.5], ("0.6123", "0.5000")),
        ([0.0625, 0.000122], ("0.06250", "0.00012")),
        ([0.5, 1e-10], ("5.000e-1", "1.000e-10")),
        ([0.0, -0.0], ("0.0000", "0.0000")),
        ([12345678.0, 3.0], ("12,345,678", "3")),
        ([12345.5, None], ("12345.5000", "—")),
        ([1e20, 1.5], ("1.000e20", "1.500e0")),
        ([math.nan, -math.inf], ("nan", "-inf")),
        ([5, 12], ("5", "12")),
        ([None], ("—",)),
    ],
)
def test_measured_numbers_share_their_decimals(values: list[float | None], cells: tuple[str, ...]) -> None:
    assert measured("loss", values).cells == cells


def test_half_an_interval_has_its_sign() -> None:
    assert measured("ci95", [0.25, None], sign="±").cells == ("±0.2500", "—")


def test_in_a_pipe_each_number_is_written_by_itself() -> None:
    assert axis("lr", [1e-5, 1e-4]).plain == ("1e-05", "0.0001")
    assert measured("loss", [0.0, 1e-10]).plain == ("0", "1e-10")


def test_a_long_text_among_numbers_makes_a_column_of_texts() -> None:
    assert axis("lr", [1e-4, "auto"]).kind is Kind.NUMBER
    assert axis("lr", [1e-4, "as in the checkpoint"]).kind is Kind.TEXT


def test_control_characters_are_left_out() -> None:
    message = messages("", ["\x1b[31mout of\nmemory\x1b[0m\a", None])
    assert message.cells == ("out of memory\ufffd", "")
    assert measured("met\tric", [None]).name == "met ric"
