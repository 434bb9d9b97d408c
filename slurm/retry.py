"""Queues again what a run has left to do."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from neobert.config import ConfigError, Problem, nearest
from slurm.recipe import load_recipe, split_key
from slurm.rundir import RunDir, read_json
from slurm.schema import SHARED
from slurm.session import reopen
from slurm.state import run_state
from slurm.submissions import Submitted


def retry_run(run: RunDir, prefixes: Sequence[str], overrides: Sequence[str]) -> list[Submitted]:
    """Submits the run's unfinished trials, or some of them, from the directory that it was submitted from.

    Raises `ConfigError`, also for overrides that would change the trials themselves.
    """
    run = RunDir(run.path.absolute())
    only: frozenset[str] = frozenset()
    if prefixes:
        state = run_state(run)
        only = frozenset(state.find(prefix).id for prefix in prefixes)
    if overrides:
        check_overrides(overrides, load_recipe(run.recipe).spec.stages)
    directory = Path((read_json(run.provenance) or {}).get("directory", "."))
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError(f"the run was submitted from {directory}, and its paths are meant there: {error}") from None
    session = reopen(run, tuple(overrides), only)
    _, jobs = session.submit()
    return jobs


def check_overrides(overrides: Sequence[str], stages: Collection[str]) -> None:
    """Raises `ConfigError` for an override of anything but how a run's trials are run."""
    problems = [Problem((), message, f"--set {text}") for text in overrides for message in _refusal(text, stages)]
    if problems:
        raise ConfigError(problems)


def _refusal(text: str, stages: Collection[str]) -> Iterator[str]:
    key, separator, _ = text.partition("=")
    if not separator or not key.strip():
        yield "expected KEY=VALUE, for example --set resources.time=02:00:00"
        return
    first, *rest = map(str, split_key(key))
    if first == "stages" and rest and rest[0] not in stages:
        yield f"the run has no stage '{rest[0]}'{nearest(rest[0], stages)}"
    elif first not in SHARED and not (first == "stages" and rest[1:] and rest[1] in SHARED):
        yield (
            f"retry runs the same trials again, so it can change only {', '.join(SHARED)} "
            "(of one stage: stages.NAME.resources.time=...); `recipe submit RECIPE --new` runs other trials"
        )
