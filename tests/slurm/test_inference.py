"""Statistics of few numbers, beside those of scipy."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from slurm.inference import DRAWS, EXACT, Summary, compare, half_width, sign_flip_p, smallest_p, summarise

SCORES = st.lists(st.integers(-277, 277).map(lambda count: count / 277), min_size=1, max_size=9)
"""Differences as those of accuracies are: many are equal, and many are 0."""


def draw(count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0.3, 1) for _ in range(count)]


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_interval_is_that_of_students_t(count: int) -> None:
    values = draw(count, seed=count)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert half_width(values) == pytest.approx((high - low) / 2, rel=1e-9)
    assert compare(values, True).ci95 == half_width(values)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 12])
def test_p_is_that_of_the_exact_permutation_test(count: int) -> None:
    for values in (draw(count, seed=count), [round(value, 1) for value in draw(count, seed=count)]):
        if count == 1:  # scipy asks for two
            assert sign_flip_p(values) == 1
            continue
        test = stats.permutation_test(
            (values,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=np.inf,
            vectorized=True,
        )  # fmt: skip
        assert sign_flip_p(values) == pytest.approx(test.pvalue, abs=1e-9)


def test_beyond_the_exact_count_p_is_drawn_near_the_exact_one_and_never_0() -> None:
    values = draw(EXACT + 1, seed=7)
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    exact = np.mean(np.abs(signs @ np.abs(values)) >= abs(sum(values)) - 1e-9)
    found = sign_flip_p(values)
    assert 0.001 < exact < 0.999, "else this says nothing"
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / DRAWS))
    assert found == sign_flip_p(values), "the same each time"
    assert sign_flip_p([1.0] * 40) == 1 / (DRAWS + 1) == smallest_p(40)


@settings(deadline=None)
@given(SCORES)
def test_swapping_the_runs_negates_and_the_order_does_not_matter(differences: list[float]) -> None:
    there, back = compare(differences, True), compare([-value for value in differences], True)
    assert (back.mean, back.ci95, back.p) == (-(there.mean or 0), there.ci95, there.p)
    assert (back.wins, back.ties, back.losses) == (there.losses, there.ties, there.wins)
    assert there.wins + there.ties + there.losses == there.pairs == len(differences)
    assert compare(differences[::-1], True) == there


@settings(deadline=None)
@given(SCORES)
def test_p_is_never_below_the_smallest_and_pairs_without_a_difference_do_not_change_it(values: list[float]) -> None:
    p = sign_flip_p(values)
    assert smallest_p(sum(map(bool, values))) <= p <= 1
    assert sign_flip_p([*values, 0.0, 0.0]) == p


def test_more_than_the_exact_count_gives_the_same_p_in_any_order_and_direction() -> None:
    values = draw(20, seed=3)
    assert sign_flip_p(values) == sign_flip_p(values[::-1]) == sign_flip_p([-value for value in values])


def test_rounding_of_the_differences_makes_no_pattern_smaller_than_an_equal_one() -> None:
    differences = [0.7 - 0.6, 0.8 - 0.7, 0.3 - 0.2, 0.3 - 0.4]
    assert len(set(map(abs, differences))) > 1, "all are 0.1, but not the same number"
    assert sign_flip_p(differences) == sign_flip_p([1.0, 1.0, 1.0, -1.0]) == 10 / 16


@pytest.mark.parametrize(("pairs", "least"), [(0, 1), (1, 1), (2, 0.5), (5, 0.0625), (10, 2 / 1024)])
def test_the_smallest_p_is_that_of_differences_of_one_sign(pairs: int, least: float) -> None:
    assert smallest_p(pairs) == least == sign_flip_p([0.1] * pairs)


def test_of_a_loss_less_is_a_win_and_best() -> None:
    found = compare([0.25, 0.5, -0.5, 0.0], greater_is_better=False)
    assert (found.wins, found.ties, found.losses) == (1, 1, 2)
    assert found.mean == 0.0625, "the difference itself stays B - A"
    assert (summarise([1.0, 3.0], False).best, summarise([1.0, 3.0], True).best) == (1, 3)


def test_few_scores_leave_out_what_they_do_not_tell() -> None:
    assert summarise([], True) == Summary()
    assert summarise([0.5], True) == Summary(mean=0.5, median=0.5, best=0.5)
    one = compare([0.25], True)
    assert (one.pairs, one.mean, one.ci95, one.wins, one.p) == (1, 0.25, None, 1, 1)
    none = compare([], True)
    assert (none.pairs, none.mean, none.ci95, none.p) == (0, None, None, None)
    assert (half_width([2.0, 2.0]), compare([0.0] * 5, True).p) == (0, 1)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_finite_number_is_never_left_out(odd: float, place: int) -> None:
    values = [0.1, 0.3]
    values.insert(place, odd)
    assert all(math.isnan(value) for value in astuple(summarise(values, True)))
    found = compare(values, True)
    assert found.pairs == 3
    assert math.isnan(found.mean or 0)
    assert math.isnan(found.ci95 or 0)
    assert math.isnan(found.p or 0)
    assert math.isnan(sign_flip_p([odd]))
