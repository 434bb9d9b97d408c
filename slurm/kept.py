"""Checkpoints that settings need of other trials, and whether those keep them (`trainer.keep`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from neobert.config import TASKS, NamedPath, Problem, Strict, dotted, named_paths
from neobert.config.base import KeyPath
from neobert.config.keep import DEFAULTS, Keep
from slurm.plan import RUN, Plan, Stage
from slurm.recipe import Recipe

_TRIAL = re.compile(r"(?:.*/)?trials/([0-9a-f]{12})(?:/(.*))?")
_CHECKPOINT = re.compile(r"checkpoints/checkpoint-([0-9]+)(?:/.*)?")


@dataclass(frozen=True)
class Demand:
    """A checkpoint that settings need of a trial: one step, the last weights, or the last training state."""

    key: KeyPath
    trial: str
    what: int | Literal["latest", "state"]

    def is_met(self, task: str, keep: Keep | None, max_steps: int | None) -> bool:
        """Return whether a trial of this task keeps it. With `all`, that depends on `save_total_limit`, as ever."""
        keep = keep or DEFAULTS[task]
        return keep == "all" or (keep == "last" and self.what in ("latest", "state", max_steps))

    @property
    def needed(self) -> Keep:
        """The setting that keeps it."""
        return "all" if isinstance(self.what, int) else "last"

    def __str__(self) -> str:
        if isinstance(self.what, int):
            return f"the checkpoint of step {self.what}"
        return "the last checkpoint" if self.what == "latest" else "the last checkpoint with its optimizer"


def demands(settings: Strict, run: str = "") -> Iterator[Demand]:
    """Yield what settings need of trials, by the paths that they name; `run` restricts it to the trials of one run."""
    for path in named_paths(settings):
        named = _TRIAL.fullmatch(path.value)
        if named is None or not path.value.startswith(run):
            continue
        what = _what(settings, path, named[2] or "")
        if what is not None:
            yield Demand(path.key, named[1], what)


def _what(settings: Any, path: NamedPath, below: str) -> int | Literal["latest", "state"] | None:
    """The checkpoint that a path into a trial means; None for its best model, which is always kept."""
    checkpoint = _CHECKPOINT.fullmatch(below)
    if checkpoint:
        return int(checkpoint[1])
    if path.key[-1] == "resume_from_checkpoint":
        return "state"
    if "pretrained_checkpoint_dir" in path.key:
        which = settings.model.pretrained_checkpoint
        return which if isinstance(which, int) or which == "latest" else None
    return None


def lost_checkpoints(plan: Plan, recipe: Recipe) -> list[Problem]:
    """Return a problem for each checkpoint that a stage needs of an earlier one which will not keep it."""
    trained = {trial.id: (stage, TASKS[trial.task].model_validate_json(trial.config)) for stage, trial in plan.trials
               if trial.task in DEFAULTS}  # fmt: skip
    problems: dict[str, Problem] = {}
    for stage, trial in plan.trials:
        for demand in demands(TASKS[trial.task].model_validate_json(trial.config), RUN):
            if demand.trial in trained and not _keeps(*trained[demand.trial], demand):
                problem = _problem(recipe, stage, trained[demand.trial][0], demand)
                problems.setdefault(str(problem), problem)
    return list(problems.values())


def _keeps(stage: Stage, settings: Any, demand: Demand) -> bool:
    return demand.is_met(stage.task, settings.trainer.keep, settings.trainer.max_steps)


def _problem(recipe: Recipe, stage: Stage, other: Stage, demand: Demand) -> Problem:
    key = ("stages", stage.name, "config", *demand.key)
    setting = dotted(recipe.source_path(("stages", other.name, "config", "trainer", "keep")))
    message = (
        f"needs {demand} of stage '{other.name}', which is not kept once a trial is done. Keep it with "
        f"{setting}: {demand.needed}"
    )
    return Problem(recipe.source_path(key), message, recipe.where(key))
