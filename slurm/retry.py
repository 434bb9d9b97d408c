"""Queues again what a run has left to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from neobert.config import ConfigError
from slurm.rundir import RunDir, read_json
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
    directory = Path((read_json(run.provenance) or {}).get("directory", "."))
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError(f"the run was submitted from {directory}, and its paths are meant there: {error}") from None
    session = reopen(run, tuple(overrides), only)
    _, jobs = session.submit()
    return jobs
