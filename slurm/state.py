"""The state of every trial of a run, from three sources: the trial's own files, the queue, and Slurm's accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.backends import QueuedTask, TaskState, get_backend
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl, read_log
from slurm.submissions import Submitted, by_trial, in_flight, read_cancelled, read_submissions

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

    @property
    def taken(self) -> bool:
        """Whether a submission would leave it out."""
        return self.state is State.DONE or self.state.active


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
        return not self.warning and not any(trial.state.active for trial in self.trials)

    def find(self, prefix: str) -> TrialState:
        """The trial whose id begins with `prefix`; raises `ConfigError` if there is none, or more than one."""
        found = [trial for trial in self.trials if trial.id.startswith(prefix)]
        if len(found) != 1:
            what = "several trials begin" if found else "no trial begins"
            raise ConfigError(f"{what} with '{prefix}'; `recipe status --all` lists them")
        return found[0]


@dataclass(frozen=True)
class _Given:
    """The job and array task that a trial was last given to."""

    job: Submitted
    index: int

    @property
    def task(self) -> str:
        return f"{self.job.id}_{self.index}" if self.job.array else str(self.job.id)

    def output(self, run: RunDir) -> Path:
        """What the job script itself printed, outside of the trial's log."""
        return run.job(self.job.stage, self.job.directory) / "logs" / f"{self.task}.out"


def run_state(run: RunDir) -> RunState:
    """Looks at every trial. When the queue gives no answer, the files alone are told of, with a warning."""
    rows = read_jsonl(run.manifest)
    submissions = read_submissions(run)
    warning = ""
    queued: dict[str, QueuedTask] | None = None
    try:
        queued = by_trial(in_flight(run, submissions))
    except ConfigError as error:
        warning = str(error)
    given = last_given(run, submissions)
    cancelled = read_cancelled(run)
    states = [_read(row, run, queued, given.get(row["id"]), cancelled) for row in rows]
    lost = {trial.id: given[trial.id] for trial in states if trial.state is State.UNKNOWN and trial.id in given}
    if lost and not warning:
        told = _history(run, lost)
        states = [_by_history(run, trial, told, lost.get(trial.id)) for trial in states]
    return RunState(run, tuple(states), warning)


def last_given(run: RunDir, submissions: list[Submitted]) -> dict[str, _Given]:
    """For each trial of the run's jobs the one that it was last given to; jobs that no queue took are left out."""
    last = {}
    for job in submissions:
        if job.id is not None:
            tasks = job.trials(run)
            for index, ids in enumerate(tasks):
                last.update(dict.fromkeys(ids, _Given(job, index)))
    return last


def _read(
    row: Mapping[str, Any],
    run: RunDir,
    queued: Mapping[str, QueuedTask] | None,
    given: _Given | None,
    cancelled: set[str],
) -> TrialState:
    """One trial; a damaged file of its own does not hide the others."""
    try:
        return _trial(row, run.trial(row["id"]), queued, given, cancelled)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        return TrialState(row["id"], row["stage"], row["point"], State.UNKNOWN, f"its files are damaged: {error}")


def _trial(
    row: Mapping[str, Any],
    directory: TrialDir,
    queued: Mapping[str, QueuedTask] | None,
    given: _Given | None,
    cancelled: set[str],
) -> TrialState:
    trial = TrialState(row["id"], row["stage"], row["point"], State.NEW)
    result = read_json(directory.result)
    if result is not None:
        _check_result(directory.result, result)
        trial = replace(trial, state=State.DONE, result=result)
    attempts = read_log(directory.attempts)
    trial = replace(trial, attempts=max((entry["attempt"] for entry in attempts), default=0))
    if result is not None:
        return trial
    running = bool(attempts) and "end" not in attempts[-1]
    task = (queued or {}).get(trial.id)
    if task is not None:
        if task.state.state != "PENDING" and running:
            progress = read_json(directory.progress) or {}
            return replace(trial, state=State.RUNNING, progress=progress, detail=attempts[-1].get("node", ""))
        return replace(trial, state=State.QUEUED, detail=_reason(task.state))
    failure = read_json(directory.failure)
    if failure is not None:
        detail = f"{_failure(failure)}: {last_line(directory.log(failure['attempt']))}"
        return replace(trial, state=State.FAILED, detail=detail)
    if queued is None and running:
        detail = "when it was last heard of"
        return replace(trial, state=State.RUNNING, progress=read_json(directory.progress) or {}, detail=detail)
    if attempts and attempts[-1].get("exit_code") == INTERRUPTED_EXIT and queued is not None:
        return replace(trial, state=State.INTERRUPTED, detail="saved a checkpoint; submit again to go on")
    if given is not None and given.task in cancelled and queued is not None:
        return replace(trial, state=State.CANCELLED)
    if given is None and not attempts:
        return trial
    detail = "in no queue, and it left no result" if queued is not None else "the queue gives no answer"
    return replace(trial, state=State.UNKNOWN, detail=detail)


def _check_result(path: Path, result: Mapping[str, Any]) -> None:
    number = (int, float)
    good = isinstance(result.get("score"), number) and isinstance(result.get("metric"), str)
    metrics = result.get("metrics")
    if not good or not isinstance(metrics, dict) or not all(isinstance(value, number) for value in metrics.values()):
        raise ConfigError(f"{path} has no score, metric and metrics as it should")


def _reason(state: TaskState) -> str:
    if state.state == "RUNNING":
        return "starting, or waiting for others of its array task"
    return state.reason if state.reason not in ("", "None") else state.state.lower()


def _failure(failure: Mapping[str, Any]) -> str:
    ending = f"signal {failure['signal']}" if failure.get("signal") else f"exit code {failure['exit_code']}"
    reason = "" if failure["reason"] == "failed" else f"{failure['reason']}, "
    return f"{reason}{ending}, attempt {failure['attempt']} on {failure['node']}"


def last_line(log: Path) -> str:
    """The last line of a log that says something; for most failures it is the message."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8000))
            lines = [line.strip() for line in stream.read().decode(errors="replace").split("\n")]
    except FileNotFoundError:
        return "there is no log"
    said = [line for line in lines if line]
    # srun and Slurm come last, and only repeat that something ended.
    own = [line for line in said if not line.startswith(("srun: ", "slurmstepd: "))]
    return (own or said or ["the log is empty"])[-1][:300]


def _history(run: RunDir, lost: Mapping[str, _Given]) -> dict[str, TaskState]:
    told: dict[str, TaskState] = {}
    for backend in {given.job.backend for given in lost.values()}:
        mine = {trial: given for trial, given in lost.items() if given.job.backend == backend}
        history = get_backend(backend, run.path).history(sorted({str(given.job.id) for given in mine.values()}))
        for trial, given in mine.items():
            state = history.get((str(given.job.id), given.index))
            if state is not None:
                told[trial] = state
    return told


def _by_history(run: RunDir, trial: TrialState, told: Mapping[str, TaskState], given: _Given | None) -> TrialState:
    """A trial without a result, by what the queue's history says of its task, and by what its script printed."""
    if given is None or "damaged" in trial.detail:
        return trial
    output = given.output(run)
    said = f": {last_line(output)}" if not trial.attempts and output.exists() and output.stat().st_size else ""
    state = told.get(trial.id)
    if state is None:
        return replace(trial, detail=trial.detail + said)
    if state.state in ("COMPLETED", "RUNNING", "PENDING"):  # the task ended well, or accounts lag behind: no verdict
        return replace(trial, detail=f"{state.state} {state.reason}".strip() + said)
    kind = State.CANCELLED if state.state == "CANCELLED" else State.FAILED
    return replace(trial, state=kind, detail=f"{state.state} {state.reason}".strip() + said)
