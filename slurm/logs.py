"""Prints the log of a trial."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from neobert.config import ConfigError
from slurm.rundir import RunDir
from slurm.state import RunState, State, TrialState, run_state
from slurm.submissions import Ledger

ORDER = (
    State.FAILED, State.OOM, State.TIMEOUT, State.RUNNING, State.UNKNOWN, State.REQUEUED, State.PREEMPTED,
    State.CANCELLED, State.BLOCKED, State.STALE, State.DONE,
)  # fmt: skip


def print_log(run: RunDir, prefix: str | None, attempt: int | None, follow: bool) -> None:
    """The log of an attempt on standard output, which one it is on standard error. Raises `ConfigError`."""
    state = run_state(run)
    trial = state.find(prefix) if prefix else _interesting(run, state)
    path = run.trial(trial.id).log(attempt if attempt is not None else trial.attempts)
    if not path.exists() and attempt is None:
        path = _outputs(run, [trial]).get(trial.id, path)
    if not path.exists():
        known = f"it has {trial.attempts}" if trial.attempts else "it has not started"
        what = f"attempt {attempt}" if attempt is not None else "log"
        raise ConfigError(f"trial {trial.id} has no {what}: {known}; its state is '{trial.state}' {trial.detail}")
    print(f"{path}", file=sys.stderr)
    _copy(run, trial, path, follow)


def _outputs(run: RunDir, trials: Iterable[TrialState]) -> dict[str, Path]:
    """What the job scripts printed of trials, for those that never came to start."""
    given = Ledger(run).last_given(trial.id for trial in trials)
    outputs = {trial: last.output(run) for trial, last in given.items()}
    return {trial: path for trial, path in outputs.items() if path.exists()}


def _interesting(run: RunDir, state: RunState) -> TrialState:
    outputs = _outputs(run, [trial for trial in state.trials if not trial.attempts])
    for kind in ORDER:
        for trial in state.trials:
            if trial.state is kind and (trial.attempts or trial.id in outputs):
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
