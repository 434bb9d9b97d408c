"""Random orders without memory."""

from __future__ import annotations

import numpy as np
import pytest

from neobert.data.order import key, mix, permuted, shuffled, uniform


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000, 65536, 70001])
def test_a_permutation_holds_every_number_once(count: int) -> None:
    found = permuted(7, count, np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))
    if count > 100:
        assert abs(np.corrcoef(found, np.arange(count))[0, 1]) < 0.1
        assert not np.array_equal(found, permuted(8, count, np.arange(count)))


def test_each_place_of_a_permutation_is_known_without_the_others() -> None:
    whole = permuted(3, 10**12, np.arange(1000))
    assert permuted(3, 10**12, np.array([17, 999])).tolist() == [whole[17], whole[999]]
    assert whole.max() < 10**12


def test_a_shuffle_holds_every_number_once() -> None:
    assert sorted(shuffled(1, 100).tolist()) == list(range(100))
    assert shuffled(1, 100).tolist() != shuffled(2, 100).tolist()


def test_a_key_depends_on_the_order_of_its_parts() -> None:
    assert len({key(1, 2), key(2, 1), key(1), key(1, 2, 0), key(-1, 2)}) == 5


def test_stirred_numbers_are_even() -> None:
    found = uniform(mix(np.arange(100_000, dtype=np.uint64)))
    assert 0 <= found.min() < 0.001
    assert 0.999 < found.max() < 1
    assert abs(found.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
