"""Prints the log of a trial."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from neobert.config import ConfigError
from slurm.rundir import RunDir
from slurm.state import RunState, State, TrialState, run_state

ORDER = (State.FAILED, State.RUNNING, State.UNKNOWN, State.INTERRUPTED, State.CANCELLED, State.DONE)


def print_log(run: RunDir, prefix: str | None, attempt: int | None, follow: bool) -> None:
    """The log of an attempt on standard output, which one it is on standard error. Raises `ConfigError`."""
    state = run_state(run)
    trial = match(state, prefix) if prefix else _interesting(state)
    number = attempt if attempt is not None else trial.attempts
    path = run.trial(trial.id).log(number)
    if not path.exists():
        known = f"it has {trial.attempts}" if trial.attempts else "it has not started"
        raise ConfigError(
            f"trial {trial.id} has no attempt {number}: {known}; its state is '{trial.state}' {trial.detail}"
        )
    print(f"{path}", file=sys.stderr)
    _copy(run, trial, path, follow)


def match(state: RunState, prefix: str) -> TrialState:
    """The trial whose id begins with `prefix`; raises `ConfigError` if there is none, or more than one."""
    found = [trial for trial in state.trials if trial.id.startswith(prefix)]
    if len(found) != 1:
        what = "several trials begin" if found else "no trial begins"
        raise ConfigError(f"{what} with '{prefix}'; `recipe status --all` lists them")
    return found[0]


def _interesting(state: RunState) -> TrialState:
    for kind in ORDER:
        for trial in state.trials:
            if trial.state is kind and trial.attempts:
                return trial
    raise ConfigError("no trial has started yet")


def _copy(run: RunDir, trial: TrialState, path: Path, follow: bool) -> None:
    with path.open("rb") as stream:
        while True:
            ended = not follow or not match(run_state(run), trial.id).state.active
            sys.stdout.buffer.write(stream.read())  # after the question, so that the last lines are not missed
            sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(2)
