"""The state of every trial of a run, from three sources: the trial's own files, the queue, and Slurm's accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.backends import QueuedTask, TaskState, get_backend
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl
from slurm.submit import Submitted, in_flight, read_submissions

INTERRUPTED_EXIT = 85


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # saved a checkpoint, and is in no queue
    NEW = "not submitted"
    UNKNOWN = "unknown"  # was submitted, and no source tells what became of it

    @property
    def active(self) -> bool:
        return self in (State.RUNNING, State.QUEUED)


@dataclass(frozen=True)
class TrialState:
    id: str
    stage: str
    point: Mapping[str, Any]
    state: State
    detail: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0


@dataclass(frozen=True)
class RunState:
    run: RunDir
    trials: tuple[TrialState, ...]
    warning: str = ""  # why the queue could not be asked

    @property
    def counts(self) -> Counter[State]:
        return Counter(trial.state for trial in self.trials)

    @property
    def ended(self) -> bool:
        return not any(trial.state.active for trial in self.trials)


def run_state(run: RunDir) -> RunState:
    """Looks at every trial. When the queue gives no answer, the files alone are told of, with a warning."""
    rows = read_jsonl(run.manifest)
    submissions = read_submissions(run)
    warning = ""
    queued: dict[str, QueuedTask] = {}
    try:
        queued = in_flight(run, submissions)
    except ConfigError as error:
        warning = str(error)
    last = _last_submission(run, submissions)
    states = [_read(row, run, queued.get(row["id"]), row["id"] in last) for row in rows]
    lost = {trial.id: last[trial.id] for trial in states if trial.state is State.UNKNOWN}
    if lost and not warning:
        told = _history(run, lost)
        states = [_ended(trial, told[trial.id]) if trial.id in told else trial for trial in states]
    return RunState(run, tuple(states), warning)


def _read(row: Mapping[str, Any], run: RunDir, queued: QueuedTask | None, submitted: bool) -> TrialState:
    """One trial; a damaged file of its own does not hide the others."""
    try:
        return _trial(row, run.trial(row["id"]), queued, submitted)
    except ConfigError as error:
        return TrialState(row["id"], row["stage"], row["point"], State.UNKNOWN, str(error))


def _trial(row: Mapping[str, Any], directory: TrialDir, queued: QueuedTask | None, submitted: bool) -> TrialState:
    attempts = read_jsonl(directory.attempts)
    count = max((entry["attempt"] for entry in attempts), default=0)
    base = {"id": row["id"], "stage": row["stage"], "point": row["point"], "attempts": count}
    result = read_json(directory.result)
    if result is not None:
        return TrialState(**base, state=State.DONE, result=result)
    running = bool(attempts) and "end" not in attempts[-1]
    if queued is not None:
        if queued.state.state == "RUNNING" and running:
            progress = read_json(directory.progress) or {}
            return TrialState(**base, state=State.RUNNING, progress=progress, detail=attempts[-1].get("node", ""))
        return TrialState(**base, state=State.QUEUED, detail=_reason(queued.state))
    failure = read_json(directory.failure)
    if failure is not None:
        detail = f"{_failure(failure)}: {_last_line(directory.log(failure['attempt']))}"
        return TrialState(**base, state=State.FAILED, detail=detail)
    if attempts and attempts[-1].get("exit_code") == INTERRUPTED_EXIT:
        detail = "saved a checkpoint; submit again to go on"
        return TrialState(**base, state=State.INTERRUPTED, detail=detail)
    if not submitted and not attempts:
        return TrialState(**base, state=State.NEW)
    return TrialState(**base, state=State.UNKNOWN, detail="in no queue, and it left no result" if submitted else "")


def _reason(state: TaskState) -> str:
    return state.reason if state.reason not in ("", "None") else state.state.lower()


def _failure(failure: Mapping[str, Any]) -> str:
    ending = f"signal {failure['signal']}" if failure.get("signal") else f"exit code {failure['exit_code']}"
    reason = "" if failure["reason"] == "failed" else f"{failure['reason']}, "
    return f"{reason}{ending}, attempt {failure['attempt']} on {failure['node']}"


def _last_line(log: Path) -> str:
    """The last line of a log that says something; for most failures it is the message."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4000))
            lines = stream.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return "there is no log"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "the log is empty")


def _last_submission(run: RunDir, submissions: list[Submitted]) -> dict[str, tuple[Submitted, int]]:
    """For each trial the job and array task that it was last given to."""
    last = {}
    for job in submissions:
        for index, ids in enumerate(job.trials(run)):
            last.update(dict.fromkeys(ids, (job, index)))
    return last


def _history(run: RunDir, lost: Mapping[str, tuple[Submitted, int]]) -> dict[str, TaskState]:
    told: dict[str, TaskState] = {}
    for backend in {job.backend for job, _ in lost.values()}:
        ids = sorted({str(job.id) for job, _ in lost.values() if job.backend == backend and job.id is not None})
        history = get_backend(backend, run.path).history(ids) if ids else {}
        for trial, (job, index) in lost.items():
            state = history.get((str(job.id), index))
            if job.backend == backend and state is not None:
                told[trial] = state
    return told


def _ended(trial: TrialState, told: TaskState) -> TrialState:
    """A trial without a result, by what the queue's history says of its task."""
    state = State.CANCELLED if told.state == "CANCELLED" else State.FAILED
    if told.state in ("COMPLETED", "RUNNING", "PENDING"):  # the task ended well, or accounts lag behind: no verdict
        state = State.UNKNOWN
    detail = f"{told.state} {told.reason}".strip()
    return TrialState(trial.id, trial.stage, trial.point, state, detail, attempts=trial.attempts)
