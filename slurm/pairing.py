"""Pairs of trials of two runs, A and B: of the same stage, at the same point of the grid, with the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neobert.config import ConfigError
from slurm.plan import label
from slurm.results import MISSING, SEED, key_cell
from slurm.state import TrialState

ALWAYS = (SEED, "task_name")
"""Keys by which trials are told apart even if no value is in both runs: of other tasks, scores say nothing."""
SHOWN = 5  # values of a key in a message


@dataclass(frozen=True)
class Pair:
    """A trial of A and one of B, or of one of them alone; `point` holds the keys by which they belong together."""

    stage: str
    point: Mapping[str, Any]
    a: TrialState | None
    b: TrialState | None


@dataclass(frozen=True)
class Pairing:
    pairs: tuple[Pair, ...]  # in the order of A, then what B alone has
    apart: tuple[str, ...]  # the keys in which the trials of a pair differ, with their values


def pair_trials(a: Sequence[TrialState], b: Sequence[TrialState]) -> Pairing:
    """Every trial of both runs, once, with its counterpart.

    They belong together by the keys that have a value in both runs. Other keys are what the runs differ in, such as the
    model. Raises `ConfigError` if a trial has several counterparts, or if none has any.
    """
    stages = dict.fromkeys(trial.stage for trial in (*a, *b))
    parts = [_Stage(stage, _of(stage, a), _of(stage, b)) for stage in stages]
    pairs = [pair for part in parts for pair in part.pairs()]
    if not any(pair.a and pair.b for pair in pairs):
        raise ConfigError("; ".join(part.why_none() for part in parts))
    return Pairing(tuple(pairs), tuple(dict.fromkeys(text for part in parts for text in part.apart())))


def _of(stage: str, trials: Iterable[TrialState]) -> list[TrialState]:
    return [trial for trial in trials if trial.stage == stage]


@dataclass(frozen=True)
class _Stage:
    """The trials of one stage, of both runs."""

    name: str
    a: list[TrialState]
    b: list[TrialState]

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for trial in (*self.a, *self.b) for key in trial.point))

    def common(self) -> list[str]:
        """The keys by which the trials belong together."""
        if not self.a or not self.b:
            return self.keys
        return [key for key in self.keys if self._in_both(key)]

    def _in_both(self, key: str) -> bool:
        if not all(any(key in trial.point for trial in trials) for trials in (self.a, self.b)):
            return False
        return key in ALWAYS or not _values(self.a, key).keys().isdisjoint(_values(self.b, key))

    def apart(self) -> list[str]:
        common = self.common()
        return [self._told(key) for key in self.keys if key not in common]

    def pairs(self) -> list[Pair]:
        keys = self.common()
        a, b = self._by_point("A", self.a, keys), self._by_point("B", self.b, keys)
        return [Pair(self.name, _point((a.get(at) or b[at]).point, keys), a.get(at), b.get(at)) for at in {**a, **b}]

    def _by_point(self, run: str, trials: Iterable[TrialState], keys: Sequence[str]) -> dict[str, TrialState]:
        found: dict[str, TrialState] = {}
        for trial in trials:
            point = _point(trial.point, keys)
            other = found.setdefault(_frozen([point.get(key) for key in keys]), trial)
            if other is not trial:
                differ = [key for key in self.keys if trial.point.get(key) != other.point.get(key)]
                raise ConfigError(
                    f"stage {self.name}: which trials are pairs is not clear: {run} has several for {label(point)}, "
                    f"which differ in {', '.join(map(self._told, differ))}. Submit the other run with the same values "
                    f"of {' and '.join(differ)}, or compare runs with a single one"
                )
        return found

    def why_none(self) -> str:
        if not self.a or not self.b:
            return f"stage {self.name} is in {'A' if self.a else 'B'} alone"
        keys = self.common()  # never empty here: without any, the trials would be pairs
        differ = [key for key in keys if _values(self.a, key).keys() != _values(self.b, key).keys()] or keys
        return (
            f"stage {self.name}: no trial of A has its counterpart in B: they differ in "
            f"{', '.join(map(self._told, differ))}. Submit one of the runs with the other's values of "
            f"{' and '.join(differ)}"
        )

    def _told(self, key: str) -> str:
        """`optimizer.lr (A: 1e-05, 3e-05; B: 5e-05)`."""
        sides = [("A", self.a), ("B", self.b)]
        return f"{key} ({'; '.join(f'{run}: {_listed(_values(trials, key).values())}' for run, trials in sides)})"


def _values(trials: Iterable[TrialState], key: str) -> dict[str, Any]:
    """The different values of a key, known by their text; None for trials whose grid does not have it."""
    return {_frozen(trial.point.get(key)): trial.point.get(key) for trial in trials}


def _listed(values: Iterable[Any]) -> str:
    texts = [key_cell(value) for value in values]
    if texts == [MISSING]:
        return "not in its grid"
    return ", ".join(texts[:SHOWN]) + (", …" if len(texts) > SHOWN else "")


def _point(point: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: point[key] for key in keys if key in point}


def _frozen(value: Any) -> str:
    """A text that is the same for the same value, also where one recipe says 3 and the other 3.0."""
    if isinstance(value, list):
        return f"[{','.join(map(_frozen, value))}]"
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)
