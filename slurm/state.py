"""The state of every trial of a run, from three sources: the trial's own files, the queue, and Slurm's accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.attempts import last_attempt, read_progress, retry_command
from slurm.backends import REST, QueuedTask, TaskState, get_backend
from slurm.failure import find_cause, how_to_go_on, verdict_text
from slurm.logtext import CHECKPOINTED, lines_of, message, slurms_verdict
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl, read_log, read_tail
from slurm.submissions import Submitted, by_trial, in_flight, read_cancelled, read_submissions


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


KINDS = {"failed": State.FAILED, "node": State.FAILED, "oom": State.OOM, "timeout": State.TIMEOUT,
         "preempted": State.PREEMPTED}  # fmt: skip
"""The states of failures by kind."""

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
    last = last_attempt(log)
    trial = replace(trial, attempts=last.get("attempt", 0))
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
        reason = task.state.reason if task.state.reason != "None" else ""
        return replace(trial, state=state, detail=_sentence([reason, _saved(last), _excluded(last)]))
    if last and "end" not in last:
        progress = read_json(directory.progress) or {}
        return replace(trial, state=State.RUNNING, progress=progress, detail=last.get("node", ""))
    state = State.REQUEUED if last else State.PENDING
    word = task.state.state.lower()
    return replace(
        trial, state=state, detail="starting, or after others of its array task" if word == "running" else word
    )


def _failed(trial: TrialState, failure: Mapping[str, Any], directory: TrialDir) -> TrialState:
    if failure.get("kind") == "node":
        complaint = (read_json(directory.path / "preflight.json") or {}).get("message", "")
        return replace(trial, state=State.FAILED, detail=_sentence([failure["reason"]], complaint))
    progress = read_progress(directory)
    cause = find_cause(failure, read_tail(directory.log(failure["attempt"])), progress)
    detail = str(cause)
    if cause.kind in ("timeout", "preempted"):  # how it goes on matters more than what it printed last
        detail = f"{cause.how}; {progress}; {how_to_go_on(progress, retry_command(directory))}"
    return replace(trial, state=KINDS[cause.kind], detail=detail, doubtful=not cause.certain)


def _excluded(last: Mapping[str, Any]) -> str:
    """Return the complaint about the nodes that the job now goes on without."""
    complaint = last.get("excluded")
    if not isinstance(complaint, dict):
        return ""
    return f"excluded {', '.join(complaint['nodes'])}: {complaint.get('reason') or complaint['message']}"


def _saved(last: Mapping[str, Any]) -> str:
    """What an attempt left behind that was asked to stop."""
    return f"saved a checkpoint at step {last.get('step', '?')}" if last.get("exit_code") == CHECKPOINTED else ""


def _check_result(path: Path, result: Mapping[str, Any]) -> None:
    number = (int, float)
    good = isinstance(result.get("score"), number) and isinstance(result.get("metric"), str)
    metrics = result.get("metrics")
    if not good or not isinstance(metrics, dict) or not all(isinstance(value, number) for value in metrics.values()):
        raise ConfigError(f"{path} has no score, metric and metrics as it should")


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


def _by_history(run: RunDir, trial: TrialState, verdict: TaskState | None, given: Given) -> TrialState:
    """A trial without a result, by what the queue's history says of its task, and by what its script printed."""
    if given.job.pack > 1 and trial.state is State.FAILED:
        return trial  # it ended before others of its task, whose end the history tells
    directory = run.trial(trial.id)
    verdict = verdict or _verdict_in_log(directory, trial.attempts)
    printed = message(lines_of(read_tail(given.output(run))), None)
    if verdict is None or verdict.state not in VERDICTS:  # as RUNNING, where accounts lag behind
        return _undecided(trial, verdict, printed)
    state = VERDICTS[verdict.state]
    if state is State.FAILED and trial.state is State.FAILED:
        return trial  # the trial's own words are the better ones
    details = [verdict_text(verdict, read_progress(directory), retry_command(directory))]
    if trial.state is State.FAILED and state is not State.TIMEOUT:
        details.append(trial.detail)
    by_script = state is State.FAILED or not trial.attempts  # else the script has nothing to say of the end
    return replace(trial, state=state, detail=_sentence(details, printed if by_script else ""))


def _verdict_in_log(directory: TrialDir, attempt: int) -> TaskState | None:
    """Slurm's own line in the log, for where there are no accounts."""
    verdict = slurms_verdict(lines_of(read_tail(directory.log(attempt)))) if attempt else ""
    return TaskState(verdict) if verdict else None


def _undecided(trial: TrialState, verdict: TaskState | None, printed: str) -> TrialState:
    if trial.state is not State.UNKNOWN:
        return trial
    word = f"{verdict.state} {verdict.reason}".strip() if verdict is not None else ""
    return replace(trial, detail=_sentence([word, trial.detail], printed if not trial.attempts else ""))


def _sentence(details: Iterable[str], printed: str = "") -> str:
    """The details, and at the end what a program printed."""
    return ": ".join(filter(None, ["; ".join(filter(None, details)), printed]))
