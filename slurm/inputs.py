"""What trials are made from, the results of the stages that their own needs, and whether these still are the same.

The job script records with each attempt a list of the trials that it needs, and the digest of their results. It follows
the same rules, in bash, when a trial starts (`is_outdated` in job.sh.j2).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, read_yaml
from slurm.plan import Plan, Stage, Trial
from slurm.rundir import RunDir

CLOCKS = 60.0  # seconds by which the clocks of nodes and file servers may differ
FEW = 8  # trials that a message names one by one
Needed = tuple[str, str]
"""A trial that others need: its id and its stage."""


def needed_by(plan: Plan, stage: Stage) -> list[Needed]:
    """The trials of the stages that a stage needs."""
    return [(trial.id, need.name) for need in plan.stages if need.name in stage.needs for trial in need.trials]


def list_of(needed: Iterable[Needed]) -> str:
    """A list of needed trials, as job scripts read it."""
    return "".join(f"{trial} {stage}\n" for trial, stage in needed)


def list_path(run: RunDir, text: str) -> Path:
    return run.needs(hashlib.sha256(text.encode()).hexdigest()[:12])


def stage_needs(run: RunDir, rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The stages that each stage of a run needs, in an order in which they can run; `rows` are its manifest.

    Raises `ConfigError`.
    """
    if len({row["stage"] for row in rows}) < 2:
        return {}  # and the recipe, which may be long, need not be read
    data = read_yaml(run.recipe).data
    try:
        needs = {name: tuple(stage.get("needs", ())) for name, stage in data["stages"].items()}
        return {name: needs[name] for name in TopologicalSorter(needs).static_order()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{run.recipe}: cannot tell which stages need which: {error!r}") from None


@dataclass(frozen=True)
class _Results:
    """The results of some needed trials, as they are now."""

    stages: tuple[str, ...]
    fault: str  # why nothing can be made from them; empty: all are there
    digest: str = ""
    newest: float = 0.0


def stale_trials(
    run: RunDir,
    needs: Mapping[str, Sequence[str]],
    rows: Iterable[Mapping[str, Any]],
    done: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Which trials were made from other results than those that are there now, and how that is known.

    `needs` are the run's `stage_needs`, `rows` its manifest, `done` the last attempts of the trials with a result.
    """
    stages: dict[str, list[str]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(row["id"])
    stale: dict[str, str] = {}
    for stage, needed in needs.items():
        mine = [trial for trial in stages.get(stage, ()) if trial in done]
        if needed and mine:
            look = _Look(run, [(trial, need) for need in needed for trial in stages.get(need, ())], stale)
            reasons = {trial: look.why_stale(done[trial]) for trial in mine}
            stale |= {trial: reason for trial, reason in reasons.items() if reason}
    return stale


class _Look:
    """A look at the inputs of a stage's trials, each list of them once."""

    def __init__(self, run: RunDir, needed: Sequence[Needed], stale: Collection[str]):
        self._run, self._stale = run, stale
        self._needed = needed
        self._lists: dict[str | None, _Results | None] = {}

    def why_stale(self, attempt: Mapping[str, Any]) -> str:
        """Why what this attempt has made does not count any more; empty if it does."""
        name, start = attempt.get("needs"), attempt.get("start")
        recorded = self._results(name) if name is not None else None
        results = recorded or self._results(None)
        assert results is not None
        if results.fault:
            return results.fault
        if recorded is not None:
            changed = recorded.digest != attempt.get("inputs")
        else:  # made by a version that recorded none, or the list is gone
            changed = isinstance(start, int | float) and results.newest > start + CLOCKS
        return f"made from other results of {' and '.join(results.stages)} than there are now" if changed else ""

    def _results(self, name: str | None) -> _Results | None:
        """Those of a list by its name, or of all trials that the stage needs now; None where the list is gone."""
        if name not in self._lists:
            needed = self._needed if name is None else _read_list(self._run.needs(name))
            self._lists[name] = None if needed is None else _look_at(self._run, needed, self._stale)
        return self._lists[name]


def _read_list(path: Path) -> list[Needed] | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return [(trial, stage) for trial, _, stage in (line.partition(" ") for line in lines)]


def _look_at(run: RunDir, needed: Sequence[Needed], stale: Collection[str]) -> _Results:
    stages = tuple(dict.fromkeys(stage for _, stage in needed))
    hashed, newest = hashlib.sha256(), 0.0
    for trial, stage in needed:
        data, time = _read(run.trial(trial).result)
        if not data:
            return _Results(stages, f"needs {stage}, whose trial {trial} has no result")
        if trial in stale:
            return _Results(stages, f"needs {stage}, whose trial {trial} is stale")
        hashed.update(data)
        newest = max(newest, time)
    return _Results(stages, "", hashed.hexdigest()[:16], newest)


def _read(path: Path) -> tuple[bytes, float]:
    """A file and when it was written; nothing where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime
    except OSError:
        return b"", 0.0


def check_needs(run: RunDir, plan: Plan, todo: Mapping[str, Sequence[Trial]], there: Collection[str]) -> None:
    """Raises `ConfigError` if trials that are to be queued need others that are neither `there` nor queued with them.

    `there` are the trials that are done or in the queue.
    """
    queued = [trial.id for trials in todo.values() for trial in trials]
    covered, lacking = {*queued, *there}, dict[str, str]()
    for stage in reversed(plan.stages):
        if todo[stage.name] or any(trial.id in lacking for trial in stage.trials):
            lacking |= {trial: need for trial, need in needed_by(plan, stage) if trial not in covered}
    if lacking:
        raise ConfigError(_not_ready(run, queued, lacking))


def _not_ready(run: RunDir, queued: Sequence[str], lacking: Mapping[str, str]) -> str:
    trial, stage = next(iter(lacking.items()))
    what = "is stale" if run.trial(trial).result.exists() else "has no result"
    more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
    every = f"`recipe retry {run.path.name}` queues all that is left"
    together = [*queued, *lacking]
    if len(together) <= FEW:
        words = " ".join(f"--trial {id}" for id in together)
        every = f"Queue them together: `recipe retry {run.path.name} {words}`; {every}"
    return f"what is to be queued needs stage {stage}, whose trial {trial} {what}{more}. {every}"
