"""Prints the log of a trial."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from neobert.config import ConfigError
from slurm.rundir import RunDir
from slurm.state import RunState, State, TrialState, last_given, run_state
from slurm.submissions import read_submissions

ORDER = (
    State.FAILED, State.OOM, State.TIMEOUT, State.RUNNING, State.UNKNOWN, State.REQUEUED, State.PREEMPTED,
    State.CANCELLED, State.DONE,
)  # fmt: skip


def print_log(run: RunDir, prefix: str | None, attempt: int | None, follow: bool) -> None:
    """The log of an attempt on standard output, which one it is on standard error. Raises `ConfigError`."""
    state = run_state(run)
    trial = state.find(prefix) if prefix else _interesting(run, state)
    path = run.trial(trial.id).log(attempt if attempt is not None else trial.attempts)
    if not path.exists() and attempt is None:
        path = _output(run, trial) or path
    if not path.exists():
        known = f"it has {trial.attempts}" if trial.attempts else "it has not started"
        what = f"attempt {attempt}" if attempt is not None else "log"
        raise ConfigError(f"trial {trial.id} has no {what}: {known}; its state is '{trial.state}' {trial.detail}")
    print(f"{path}", file=sys.stderr)
    _copy(run, trial, path, follow)


def _output(run: RunDir, trial: TrialState) -> Path | None:
    """What the job script printed of a trial that never came to start."""
    given = last_given(run, read_submissions(run)).get(trial.id)
    output = given.output(run) if given is not None else None
    return output if output is not None and output.exists() else None


def _interesting(run: RunDir, state: RunState) -> TrialState:
    for kind in ORDER:
        for trial in state.trials:
            if trial.state is kind and (trial.attempts or _output(run, trial)):
                return trial
    raise ConfigError("no trial has started yet")


def _copy(run: RunDir, trial: TrialState, path: Path, follow: bool) -> None:
    with path.open("rb") as stream:
        while True:
            ended = not follow or not run_state(run).find(trial.id).state.active
            sys.stdout.buffer.write(stream.read())  # after the question, so that the last lines are not missed
            sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(2)
