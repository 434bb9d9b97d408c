"""Two runs side by side: a row for each point of the grid, and how sure it is that they differ."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neobert.config import ConfigError, greater_is_better
from slurm.inference import compare, mean, smallest_p
from slurm.pairing import Pair, pair_trials
from slurm.plan import label
from slurm.results import INTERVAL, SEED, Table, cell, check_metric, score_of, value_of, why_no_score
from slurm.state import RunState, TrialState

STATISTICS = ("metric", "pairs", "mean_a", "mean_b", "difference", INTERVAL, "wins", "ties", "losses", "p")


@dataclass(frozen=True)
class Comparison:
    table: Table
    notes: tuple[str, ...]  # what must be known to read it


@dataclass
class _Point:
    """The pairs that differ in their seed alone."""

    stage: str
    point: dict[str, Any]
    metric: str
    scores: list[tuple[float, float]] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        return [b - a for a, b in self.scores]


def compare_runs(a: RunState, b: RunState, metric: str | None = None) -> Comparison:
    """B beside A, trial by trial; the last row takes the pairs of all points together.

    Raises `ConfigError` if the trials cannot be paired (`slurm.pairing`), if no pair is done, or if the two trials of a
    pair are scored by different metrics.
    """
    check_metric(a.trials, metric, " of A")
    check_metric(b.trials, metric, " of B")
    pairing = pair_trials(a.trials, b.trials)
    points = _points(pairing.pairs, metric)
    missing = [_missing(pairing.pairs, metric, in_a) for in_a in (True, False)]
    told = [f"not paired of {run}: {text}" for run, text in zip("AB", missing, strict=True) if text]
    if not any(point.scores for point in points):
        raise ConfigError(f"no pair of trials is done in both runs ({'; '.join(told)}); `recipe status` tells more")
    where = [os.path.relpath(state.run.path) for state in (a, b)]
    notes = [f"A is {where[0]}, B is {where[1]}; differences are B - A, wins are those of B"]
    notes += [f"what the runs differ in: {', '.join(pairing.apart)}"] if pairing.apart else []
    scored = [point for point in points if point.scores]
    everything = _everything(scored) if len(scored) > 1 else None
    notes += told + _notes(scored, everything)
    return Comparison(_table(points, everything), tuple(notes))


def _points(pairs: Sequence[Pair], metric: str | None) -> list[_Point]:
    """The points that both runs have, in the order of the grid, with the scores of the pairs that are done."""
    points: dict[str, _Point] = {}
    for pair in pairs:
        if pair.a is None or pair.b is None:
            continue
        values = {key: value for key, value in pair.point.items() if key != SEED}
        name = metric or _metric(pair)
        point = points.setdefault(json.dumps([pair.stage, values]), _Point(pair.stage, values, name))
        point.metric = point.metric or name
        if name not in ("", point.metric):
            raise ConfigError(
                f"stage {pair.stage}, {label(values)}: some pairs are scored by {point.metric} and others by {name}, "
                "which have no mean; --metric compares by one that all have"
            )
        a, b = score_of(pair.a, metric), score_of(pair.b, metric)
        if a is not None and b is not None:
            point.scores.append((a, b))
    return list(points.values())


def _metric(pair: Pair) -> str:
    """What both trials are scored by, or nothing if one is not done."""
    assert pair.a is not None and pair.b is not None
    if not pair.a.result or not pair.b.result:
        return ""
    a, b = pair.a.result["metric"], pair.b.result["metric"]
    if a != b:
        both = sorted(pair.a.result["metrics"].keys() & pair.b.result["metrics"].keys())
        advice = f"--metric compares by one that both have: {', '.join(both)}" if both else "they have none in common"
        raise ConfigError(f"stage {pair.stage}, {label(pair.point)}: A is scored by {a}, B by {b}; {advice}")
    return a


def _everything(points: Sequence[_Point]) -> _Point | None:
    """All pairs as if of one point; None where a gain for one point is a loss for another."""
    if len({greater_is_better(point.metric) for point in points}) > 1:
        return None
    metrics = dict.fromkeys(point.metric for point in points)
    return _Point("all", {}, next(iter(metrics)), [pair for point in points for pair in point.scores])


def _table(points: Sequence[_Point], everything: _Point | None) -> Table:
    keys = list(dict.fromkeys(key for point in points for key in point.point))
    stages = ["stage"] if len({point.stage for point in points}) > 1 else []
    rows = [
        (*([point.stage] if stages else []), *(value_of(point.point, key) for key in keys), *_statistics(point))
        for point in points
    ]
    if everything is not None:
        metrics = {point.metric for point in points if point.scores}
        name = everything.metric if len(metrics) == 1 else None
        rows.append(("all", *[None] * (len(stages) + len(keys) - 1), name, *_statistics(everything)[1:]))
    return Table((*stages, *keys, *STATISTICS), tuple(rows), tuple(keys))


def _statistics(point: _Point) -> tuple[Any, ...]:
    found = compare(point.differences, greater_is_better(point.metric))
    return (
        point.metric if point.scores else None, found.pairs,
        mean([a for a, _ in point.scores]), mean([b for _, b in point.scores]), found.mean, found.ci95,
        found.wins, found.ties, found.losses, found.p,
    )  # fmt: skip


def _missing(pairs: Sequence[Pair], metric: str | None, in_a: bool) -> str:
    """What keeps trials of one run out of the comparison: `2 failed, 3 not in B`."""
    other = "B" if in_a else "A"
    reasons: Counter[str] = Counter()
    for pair in pairs:
        mine, its = (pair.a, pair.b) if in_a else (pair.b, pair.a)
        if mine is not None:
            reason = why_no_score(mine, metric) or _why_not(its, metric, other)
            reasons.update([reason] if reason else [])
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _why_not(other: TrialState | None, metric: str | None, run: str) -> str:
    if other is None:
        return f"not in {run}"
    reason = why_no_score(other, metric)
    return reason and f"{reason if other.result else 'not done'} in {run}"


def _notes(points: Sequence[_Point], everything: _Point | None) -> list[str]:
    notes = []
    if everything is not None:
        means = [found for point in points if (found := mean(point.differences)) is not None]
        notes.append(f"in 'all' each pair counts once; the mean of the points' differences is {cell(mean(means))}")
    elif len(points) > 1:
        notes.append("there is no row for all points: of some metrics more is better, of others less (--metric)")
    rows = [*points, *([everything] if everything is not None else [])]
    counts = sorted({sum(map(bool, point.differences)) for point in rows} - {0})
    if counts:
        least = ", ".join(f"{cell(smallest_p(count))} with {count}" for count in counts)
        notes.append(
            "p is that of a two-sided sign-flip test. By the number of pairs that differ it can be no smaller than "
            f"{least}: a large p does not mean that the runs are equal"
        )
    return notes
