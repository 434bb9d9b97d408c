"""The attempts of a trial, by its files: what is known of the newest one, and how far they all got."""

from __future__ import annotations

import os
import shlex
from typing import Any

from neobert.config import ConfigError
from slurm.failure import Progress
from slurm.logtext import CHECKPOINTED
from slurm.rundir import TrialDir, read_json


def read_progress(directory: TrialDir) -> Progress:
    """Read how far a trial got from the files of its attempts."""
    last = directory.last_attempt()
    try:
        state = read_json(directory.progress) or {}
    except ConfigError:  # damaged: the checkpoints tell the more important half
        state = {}
    stopped = last.get("exit_code") == CHECKPOINTED
    step = _number(last.get("step")) or _number(state.get("step"))
    saved = directory.last_checkpoint() if directory.checkpoints.is_dir() else step if stopped else None
    return Progress(step, _number(state.get("total_steps")), saved, stopped and saved == step)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def retry_command(directory: TrialDir) -> str:
    """The command that runs the trial's run again, from here."""
    return f"recipe retry {shlex.quote(os.path.relpath(directory.path.parents[1]))}"
