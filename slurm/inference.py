"""Statistics of few numbers: what the scores over seeds say of their mean, and whether two runs differ.

Two runs are compared by the differences of their pairs, trials that share task, settings and seed: what such trials
have in common (the order of the data, how hard a task is) then takes no part (Dror et al. 2018, "The Hitchhiker's Guide
to Testing Statistical Significance in Natural Language Processing"). The test is Fisher's randomisation test
("The Design of Experiments", 1935, section 21): if it does not matter which run a trial is of, every difference could
as well have the other sign, and p is the share of all patterns of signs whose sum is as far from zero as the one found.
It asks for no distribution and holds with any number of pairs; with few of them it cannot give a small p.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
EXACT = 16
"""Up to so many pairs that differ, all patterns of signs are counted; beyond, DRAWS of them."""
DRAWS = 100_000
ROUNDING = 1e-10
"""Sums that differ by no more than this share of the largest sum are equal, and differ by rounding."""


@dataclass(frozen=True)
class Summary:
    """Scores over seeds; None where there are too few of them, NaN where one of them is no finite number."""

    mean: float | None = None
    ci95: float | None = None
    sd: float | None = None
    median: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Paired:
    """Differences of pairs, B - A; p and the interval are NaN where one of them is no finite number.

    Such a difference is no win, tie or loss either, so that these then make less than `pairs`.
    """

    pairs: int
    mean: float | None
    ci95: float | None
    wins: int
    ties: int
    losses: int
    p: float | None


def summarise(scores: Sequence[float], greater_is_better: bool) -> Summary:
    if not scores:
        return Summary()
    if not _finite(scores):
        return Summary(*[math.nan] * 5)
    return Summary(
        mean=statistics.fmean(scores),
        ci95=half_width(scores),
        sd=statistics.stdev(scores) if len(scores) > 1 else None,
        median=statistics.median(scores),
        best=max(scores) if greater_is_better else min(scores),
    )


def compare(differences: Sequence[float], greater_is_better: bool) -> Paired:
    """What the differences B - A of pairs say; wins are those of B."""
    gains = [difference if greater_is_better else -difference for difference in differences]
    return Paired(
        pairs=len(differences),
        mean=mean(differences),
        ci95=half_width(differences),
        wins=sum(gain > 0 for gain in gains),
        ties=sum(gain == 0 for gain in gains),
        losses=sum(gain < 0 for gain in gains),
        p=sign_flip_p(differences) if differences else None,
    )


def mean(values: Sequence[float]) -> float | None:
    """NaN where a value is no finite number, None where there is none."""
    if not values:
        return None
    return statistics.fmean(values) if _finite(values) else math.nan


def half_width(values: Sequence[float]) -> float | None:
    """Half of the confidence interval of the mean, by Student's t with n - 1 degrees of freedom; None for less than 2.

    It takes the values for independent and about normal, which few of them can neither show nor rule out.
    """
    if len(values) < 2:
        return None
    if not _finite(values):
        return math.nan
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def sign_flip_p(differences: Sequence[float]) -> float:
    """p of the two-sided randomisation test that the differences are symmetric about 0; NaN if one is not finite.

    Exact up to EXACT differences other than 0. Beyond, from DRAWS random patterns, always the same ones, with the
    pattern found counted among them, (1 + as far) / (1 + DRAWS), without which p could be 0 (Phipson and Smyth 2010).
    """
    if not _finite(differences):
        return math.nan
    # Zeros leave every sum as it is. Signs are drawn for sizes in order, so that swapped runs have the same p.
    sizes = sorted(abs(difference) for difference in differences if difference)
    if not sizes:
        return 1.0
    far = abs(math.fsum(differences)) - ROUNDING * math.fsum(sizes)
    if len(sizes) > EXACT:
        return (1 + _count_drawn(sizes, far)) / (1 + DRAWS)
    sums = sizes[:1]  # the other sign of the first gives the same sums, negated
    for size in sizes[1:]:
        sums = [total + signed for total in sums for signed in (size, -size)]
    return sum(abs(total) >= far for total in sums) / len(sums)


def smallest_p(pairs: int) -> float:
    """The smallest p that so many pairs that differ can have, however much they differ."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs <= EXACT else 1 / (1 + DRAWS)


def _count_drawn(sizes: Sequence[float], far: float) -> int:
    import numpy as np

    generator = np.random.default_rng(0)
    batch = 1000  # patterns at a time, for the memory's sake
    count = 0
    for _ in range(DRAWS // batch):
        signs = 2 * generator.integers(0, 2, size=(batch, len(sizes)), dtype=np.int8) - 1
        count += int(np.count_nonzero(np.abs(signs @ np.array(sizes)) >= far))
    return count


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
