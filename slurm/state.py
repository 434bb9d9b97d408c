"""The state of every trial of a run, from three sources: the trial's own files, the queue, and Slurm's accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.backends import REST, QueuedTask, TaskState, get_backend
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl, read_log
from slurm.submissions import Submitted, by_trial, in_flight, read_cancelled, read_submissions

CHECKPOINTED = 85


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    PENDING = "pending"
    REQUEUED = "requeued"  # waits to go on after an attempt
    FAILED = "failed"
    TIMEOUT = "timeout"
    OOM = "out of memory"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    NEW = "not submitted"
    UNKNOWN = "unknown"  # was submitted, and no source tells what became of it

    @property
    def active(self) -> bool:
        return self in (State.RUNNING, State.PENDING, State.REQUEUED)


KINDS = {"failed": State.FAILED, "node": State.FAILED, "oom": State.OOM, "timeout": State.TIMEOUT}
"""What the job script says of a failure."""

VERDICTS = {
    "FAILED": State.FAILED, "NODE_FAIL": State.FAILED, "BOOT_FAIL": State.FAILED, "DEADLINE": State.TIMEOUT,
    "TIMEOUT": State.TIMEOUT, "OUT_OF_MEMORY": State.OOM, "PREEMPTED": State.PREEMPTED, "CANCELLED": State.CANCELLED,
}  # fmt: skip
"""What Slurm's accounts, or the local queue's, say of a task that is over."""

Verdicts = dict[tuple[str, int], TaskState]
"""How trials ended according to the queue's history, by id and attempt: it is asked about each once."""


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
    doubtful: bool = False  # whether the queue's history may know better

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
class Given:
    """The job and array task that a trial was last given to."""

    job: Submitted
    index: int

    @property
    def task(self) -> str:
        return f"{self.job.id}_{self.index}" if self.job.array else str(self.job.id)

    def output(self, run: RunDir) -> Path:
        """What the job script itself printed, outside of the trial's log."""
        return run.job(self.job.stage, self.job.directory) / "logs" / f"{self.task}.out"


def run_state(run: RunDir, verdicts: Verdicts | None = None) -> RunState:
    """Looks at every trial. When the queue gives no answer, the files alone are told of, with a warning.

    One question to the queue, and one to its history about trials whose end is unclear. Who asks repeatedly hands over
    the same `verdicts` each time, and what is known already is not asked again.
    """
    verdicts = {} if verdicts is None else verdicts
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
    doubtful = [trial for trial in states if trial.doubtful and trial.id in given]
    asked = {t.id: given[t.id] for t in doubtful if (t.id, t.attempts) not in verdicts}
    if asked and not warning:
        told = _history(run, asked)
        # What is not final is asked again: accounts lag behind.
        verdicts |= {(t.id, t.attempts): told[t.id] for t in doubtful if t.id in told and told[t.id].state in VERDICTS}
    else:
        told = {}
    by_history = {
        t.id: _by_history(run, t, verdicts.get((t.id, t.attempts)) or told.get(t.id), given[t.id]) for t in doubtful
    }
    return RunState(run, tuple(by_history.get(trial.id, trial) for trial in states), warning)


def last_given(run: RunDir, submissions: list[Submitted]) -> dict[str, Given]:
    """For each trial of the run's jobs the one that it was last given to; jobs that no queue took are left out."""
    last = {}
    for job in submissions:
        if job.id is not None:
            tasks = job.trials(run)
            for index, ids in enumerate(tasks):
                last.update(dict.fromkeys(ids, Given(job, index)))
    return last


def _read(
    row: Mapping[str, Any],
    run: RunDir,
    queued: Mapping[str, QueuedTask] | None,
    given: Given | None,
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
    given: Given | None,
    cancelled: set[str],
) -> TrialState:
    trial = TrialState(row["id"], row["stage"], row["point"], State.NEW)
    result = read_json(directory.result)
    if result is not None:
        _check_result(directory.result, result)
        trial = replace(trial, state=State.DONE, result=result)
    log = read_log(directory.attempts)
    number = max((entry["attempt"] for entry in log), default=0)
    # Lines of one attempt: an older one that was thought dead may have written after it.
    last: dict[str, Any] = {key: value for entry in log if entry["attempt"] == number for key, value in entry.items()}
    trial = replace(trial, attempts=number)
    if result is not None:
        return trial
    running = bool(last) and "end" not in last
    task = (queued or {}).get(trial.id)
    if task is not None:
        return _in_queue(trial, task, directory, last)
    failure = read_json(directory.failure)
    if failure is not None:
        return _failed(trial, failure, directory)
    if queued is None and running:
        detail = "when it was last heard of"
        return replace(trial, state=State.RUNNING, progress=read_json(directory.progress) or {}, detail=detail)
    if given is not None and given.task in cancelled and queued is not None:
        return replace(trial, state=State.CANCELLED, detail=_saved(last))
    if given is None and not last:
        return trial
    detail = _saved(last) or "in no queue, and it left no result"
    return replace(trial, state=State.UNKNOWN, detail=detail if queued is not None else "the queue gives no answer",
                   doubtful=queued is not None)  # fmt: skip


def _in_queue(trial: TrialState, task: QueuedTask, directory: TrialDir, last: Mapping[str, Any]) -> TrialState:
    if task.state.state == "PENDING":
        state = State.REQUEUED if last else State.PENDING
        said = [task.state.reason if task.state.reason not in ("", "None") else "", _saved(last)]
        return replace(trial, state=state, detail="; ".join(filter(None, said)))
    if last and "end" not in last:
        progress = read_json(directory.progress) or {}
        return replace(trial, state=State.RUNNING, progress=progress, detail=last.get("node", ""))
    state = State.REQUEUED if last else State.PENDING
    word = task.state.state.lower()
    return replace(
        trial, state=state, detail="starting, or after others of its array task" if word == "running" else word
    )


def _failed(trial: TrialState, failure: Mapping[str, Any], directory: TrialDir) -> TrialState:
    state = KINDS[failure.get("kind", "failed")]
    said = last_line(directory.log(failure["attempt"]))
    if failure.get("kind") == "node":
        said = (read_json(directory.path / "preflight.json") or {}).get("message", said)
    # A signal that ended it may have been Slurm's, and then only Slurm knows why.
    doubtful = state is State.FAILED and (failure.get("signal") in ("KILL", "TERM") or "SIG" in failure["reason"])
    return replace(trial, state=state, detail=f"{_failure(failure)}: {said}", doubtful=doubtful)


def _saved(last: Mapping[str, Any]) -> str:
    """What an attempt left behind that was asked to stop."""
    return f"saved a checkpoint at step {last.get('step', '?')}" if last.get("exit_code") == CHECKPOINTED else ""


def _check_result(path: Path, result: Mapping[str, Any]) -> None:
    number = (int, float)
    good = isinstance(result.get("score"), number) and isinstance(result.get("metric"), str)
    metrics = result.get("metrics")
    if not good or not isinstance(metrics, dict) or not all(isinstance(value, number) for value in metrics.values()):
        raise ConfigError(f"{path} has no score, metric and metrics as it should")


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


def _history(run: RunDir, lost: Mapping[str, Given]) -> dict[str, TaskState]:
    told: dict[str, TaskState] = {}
    for backend in {given.job.backend for given in lost.values()}:
        mine = {trial: given for trial, given in lost.items() if given.job.backend == backend}
        history = get_backend(backend, run.path).history(sorted({str(given.job.id) for given in mine.values()}))
        for trial, given in mine.items():
            state = history.get((str(given.job.id), given.index)) or history.get((str(given.job.id), REST))
            if state is not None:
                told[trial] = state
    return told


def _by_history(run: RunDir, trial: TrialState, told: TaskState | None, given: Given) -> TrialState:
    """A trial without a result, by what the queue's history says of its task, and by what its script printed."""
    output = given.output(run)
    said = f": {last_line(output)}" if not trial.attempts and output.exists() and output.stat().st_size else ""
    if given.job.pack > 1 and trial.state is State.FAILED:
        return trial  # it ended before others of its task, whose end the history tells
    if told is None or told.state not in VERDICTS:  # as RUNNING, where accounts lag behind
        verdict = f"{told.state} {told.reason}".strip() + "; " if told is not None else ""
        return trial if trial.state is not State.UNKNOWN else replace(trial, detail=verdict + trial.detail + said)
    state = VERDICTS[told.state]
    if state is State.FAILED and trial.state is State.FAILED:
        return trial  # the trial's own words are the better ones
    more = trial.detail if trial.attempts else ""
    return replace(
        trial, state=state, detail="; ".join(filter(None, [f"{told.state} {told.reason}".strip(), more])) + said
    )
