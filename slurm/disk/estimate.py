"""The disk space that a plan needs, stage by stage, and the space that is free."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm.disk.errors import Unknown
from slurm.disk.models import Models
from slurm.disk.usage import usage_of
from slurm.plan import Plan, Stage, Trial


@dataclass(frozen=True)
class StageUsage:
    """Bytes of the trials of a stage that are to run: `each` and `peak` (all together) at most, and what stays.

    `unknown` is the reason why they are not known; they are then 0.
    """

    stage: str
    trials: int
    each: int
    peak: int
    stays: int
    unknown: str = ""


@dataclass(frozen=True)
class Estimate:
    """Bytes of all trials that are to run, as far as they are known, and those that are free in `place`."""

    stages: tuple[StageUsage, ...]
    peak: int
    stays: int
    free: int
    place: Path

    @property
    def fits(self) -> bool:
        return self.peak <= self.free


def estimate(plan: Plan, todo: Mapping[str, Sequence[Trial]], runs: Path) -> Estimate:
    """Estimate the space that the trials to run take in addition to what is there now."""
    models = Models(plan)
    stages = tuple(_of_stage(plan, stage, todo[stage.name], models) for stage in plan.stages if todo[stage.name])
    place = _nearest(runs)
    stays = sum(stage.stays for stage in stages)
    return Estimate(stages, stays + _above(plan, stages), stays, shutil.disk_usage(place).free, place)


def _of_stage(plan: Plan, stage: Stage, trials: Sequence[Trial], models: Models) -> StageUsage:
    try:
        usages = [usage_of(trial.id, models) for trial in trials]
    except Unknown as error:
        return StageUsage(stage.name, len(trials), 0, 0, 0, str(error))
    stays = sum(usage.stays for usage in usages)
    above = sorted((usage.peak - usage.stays for usage in usages), reverse=True)
    peak = stays + sum(above[: _at_once(plan, stage)])
    return StageUsage(stage.name, len(trials), max(usage.peak for usage in usages), peak, stays)


def _at_once(plan: Plan, stage: Stage) -> int | None:
    """The number of trials of a stage that run at once; None where only the cluster sets a limit."""
    if plan.profile.backend != "local":
        return stage.array.parallel
    here = max(1, len(os.sched_getaffinity(0)) // stage.resources.cpus)
    return min(here, stage.array.parallel or here)


def _above(plan: Plan, stages: Sequence[StageUsage]) -> int:
    """Bytes beyond what stays: the most that stages take which may run at the same time."""
    above = {stage.stage: stage.peak - stage.stays for stage in stages}
    return max((sum(above.get(other, 0) for other in _beside(plan, name)) for name in above), default=0)


def _beside(plan: Plan, name: str) -> list[str]:
    """This stage, and all that neither need it nor are needed by it."""
    needs = {stage.name: stage.needs for stage in plan.stages}

    def needed(stage: str) -> set[str]:
        return {stage}.union(*map(needed, needs[stage]))

    return [other for other in needs if other == name or (name not in needed(other) and other not in needed(name))]


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
