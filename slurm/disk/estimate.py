"""What a plan takes of the disk, stage by stage, and whether that fits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm.disk.errors import Unknown
from slurm.disk.models import Models
from slurm.disk.usage import Usage, usage_of
from slurm.plan import Plan, Stage, Trial


@dataclass(frozen=True)
class StageUsage:
    """Of the trials of a stage that are to run: each at most, all together at most, and what stays of all."""

    stage: str
    trials: int
    each: int
    peak: int
    stays: int
    unknown: str = ""
    """Why the numbers are not known, and 0."""


@dataclass(frozen=True)
class Estimate:
    """Of all trials that are to run, with what is free where their runs lie."""

    stages: tuple[StageUsage, ...]
    peak: int
    stays: int
    free: int
    place: Path

    @property
    def fits(self) -> bool:
        return self.peak <= self.free


def estimate(plan: Plan, todo: Mapping[str, Sequence[Trial]], runs: Path) -> Estimate:
    """What the trials that are to run take beside what is there already."""
    models = Models(plan)
    found = tuple(_of_stage(plan, stage, todo[stage.name], models) for stage in plan.stages if todo[stage.name])
    place = _that_exists(runs)
    return Estimate(found, _peak(plan, found), sum(each.stays for each in found), shutil.disk_usage(place).free, place)


def _of_stage(plan: Plan, stage: Stage, trials: Sequence[Trial], models: Models) -> StageUsage:
    try:
        usages = [usage_of(trial.id, models) for trial in trials]
    except Unknown as error:
        return StageUsage(stage.name, len(trials), 0, 0, 0, str(error))
    stays = sum(usage.stays for usage in usages)
    above = sorted((max(0, usage.peak - usage.stays) for usage in usages), reverse=True)
    peak = stays + sum(above[: _at_once(plan, stage)])
    return StageUsage(stage.name, len(trials), max(map(_most, usages)), peak, stays)


def _most(usage: Usage) -> int:
    return max(usage.peak, usage.stays)


def _at_once(plan: Plan, stage: Stage) -> int | None:
    """How many trials of a stage run at once; None where only the cluster sets a limit."""
    if plan.profile.backend != "local":
        return stage.array.parallel
    here = max(1, len(os.sched_getaffinity(0)) // stage.resources.cpus)
    return min(here, stage.array.parallel or here)


def _peak(plan: Plan, found: Sequence[StageUsage]) -> int:
    """What stays of all stages, and what those take above that which may run at the same time."""
    above = {each.stage: each.peak - each.stays for each in found}
    together = [sum(above.get(other, 0) for other in _beside(plan, each.stage)) for each in found]
    return sum(each.stays for each in found) + max(together, default=0)


def _beside(plan: Plan, name: str) -> list[str]:
    """This stage and those that neither need it nor are needed by it."""
    needs = {stage.name: stage.needs for stage in plan.stages}

    def needed(stage: str) -> set[str]:
        return {stage}.union(*map(needed, needs[stage]))

    return [other for other in needs if other == name or (name not in needed(other) and other not in needed(name))]


def _that_exists(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
