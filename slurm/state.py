"""The state of every trial of a run, from three sources: the trial's own files, the queue, and Slurm's accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from neobert.config import ConfigError
from slurm.attempts import read_progress, retry_command
from slurm.backends import REST, QueuedTask, TaskState, get_backend
from slurm.done import Files, read_files, stale_among
from slurm.failure import find_cause, how_to_go_on, verdict_text
from slurm.inputs import stage_needs
from slurm.logtext import CHECKPOINTED, lines_of, message, slurms_verdict
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl, read_tail
from slurm.submissions import Given, InFlight, Ledger, by_trial, in_flight


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
    BLOCKED = "blocked"  # a trial that it needs had no result when it was to start
    STALE = "stale"  # done, but what it was made from was made again since
    NEW = "not submitted"
    UNKNOWN = "unknown"  # was submitted, and no source tells what became of it

    @property
    def active(self) -> bool:
        return self in (State.RUNNING, State.PENDING, State.REQUEUED)


KINDS = {"failed": State.FAILED, "node": State.FAILED, "oom": State.OOM, "timeout": State.TIMEOUT,
         "needs": State.BLOCKED, "preempted": State.PREEMPTED}  # fmt: skip
"""The states of failures by kind."""

VERDICTS = {
    "FAILED": State.FAILED, "NODE_FAIL": State.FAILED, "BOOT_FAIL": State.FAILED, "DEADLINE": State.TIMEOUT,
    "TIMEOUT": State.TIMEOUT, "OUT_OF_MEMORY": State.OOM, "PREEMPTED": State.PREEMPTED, "CANCELLED": State.CANCELLED,
}  # fmt: skip
"""What Slurm's accounts, or the local queue's, say of a task that is over."""

READY = "something that it needs had no result when it was to start, and has one now: `recipe submit` queues it"
"""The detail of a blocked trial that could run by now."""

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
    notes: tuple[str, ...] = ()  # what else cannot be known

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


def run_state(run: RunDir, verdicts: Verdicts | None = None) -> RunState:
    """Looks at every trial. When the queue gives no answer, the files alone are told of, with a warning.

    The queue's history is asked about trials whose end is unclear. Who asks repeatedly hands over the same `verdicts`
    each time, and what is known already is not asked again.
    """
    verdicts = {} if verdicts is None else verdicts
    rows = read_jsonl(run.manifest)
    ledger = Ledger(run)
    warning, flights = "", list[InFlight]()
    try:
        flights = in_flight(ledger)  # before the files: what ends in between has left its result by then
    except ConfigError as error:
        warning = str(error)
    files = {row["id"]: read_files(run.trial(row["id"])) for row in rows}
    queued = None if warning else _queued(flights, files)
    needs, notes = _needs(run, rows)
    stale = stale_among(run, needs, rows, files)
    given = ledger.last_given(trial for trial, seen in files.items() if seen.result is None or trial in stale)
    cancelled = {trial for trial, last in given.items() if ledger.was_cancelled(last.job, last.task)}
    states = [_trial(row, files[row["id"]], run, queued, given.get(row["id"]), cancelled, stale) for row in rows]
    states = _with_history(run, states, given, verdicts, asks=not warning)
    return RunState(run, tuple(_blocked_now(states, needs)), warning, (*notes, *ledger.warnings))


def _needs(run: RunDir, rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Sequence[str]], list[str]]:
    """The stages that each stage needs; where that cannot be read, a note."""
    try:
        return stage_needs(run, rows), []
    except ConfigError as error:
        return {}, [f"{error}; no trial is known to be stale"]


def _queued(flights: Sequence[InFlight], files: Mapping[str, Files]) -> dict[str, QueuedTask]:
    """For each trial in flight its array task. Where no list says which trials that runs, they themselves may."""
    unlisted = {flight.task.name: flight.task for flight in flights if flight.unlisted}
    own = {
        trial: unlisted[seen.last["job"]]
        for trial, seen in files.items()
        if seen.last.get("job") in unlisted and seen.last.get("exit_code", CHECKPOINTED) == CHECKPOINTED
    }
    return own | by_trial(flights)


def _with_history(
    run: RunDir, states: Iterable[TrialState], given: Mapping[str, Given], verdicts: Verdicts, asks: bool
) -> list[TrialState]:
    """The same, with what the queue's history says of those whose end is unclear."""
    states = list(states)
    doubtful = [trial for trial in states if trial.doubtful and trial.id in given]
    asked = {t.id: given[t.id] for t in doubtful if (t.id, t.attempts) not in verdicts}
    answers = _history(run, asked) if asked and asks else {}
    # What is not final is asked again: accounts lag behind.
    verdicts |= {(t.id, t.attempts): answers[t.id] for t in doubtful
                 if t.id in answers and answers[t.id].state in VERDICTS}  # fmt: skip
    by_history = {
        t.id: _by_history(run, t, verdicts.get((t.id, t.attempts)) or answers.get(t.id), given[t.id]) for t in doubtful
    }
    return [by_history.get(trial.id, trial) for trial in states]


def _blocked_now(states: Sequence[TrialState], needs: Mapping[str, Sequence[str]]) -> list[TrialState]:
    """The same, where blocked trials say what they lack now, and not what they lacked when they were to start."""
    unfinished: dict[str, TrialState] = {}
    for trial in states:
        if trial.state is not State.DONE:
            unfinished.setdefault(trial.stage, trial)
    details = {
        stage: next((_lacking(unfinished[need]) for need in needed if need in unfinished), READY)
        for stage, needed in needs.items()
    }
    return [
        replace(trial, detail=details.get(trial.stage, trial.detail)) if trial.state is State.BLOCKED else trial
        for trial in states
    ]


def _lacking(trial: TrialState) -> str:
    what = "is stale" if trial.state is State.STALE else "has no result"
    return f"needs {trial.stage}, whose trial {trial.id} {what}"


def _trial(
    row: Mapping[str, Any],
    seen: Files,
    run: RunDir,
    queued: Mapping[str, QueuedTask] | None,
    given: Given | None,
    cancelled: set[str],
    stale: Mapping[str, str],
) -> TrialState:
    trial = TrialState(row["id"], row["stage"], row["point"], State.NEW, attempts=seen.last.get("attempt", 0))
    if seen.damage:
        return replace(trial, state=State.UNKNOWN, detail=seen.damage)
    if seen.result is not None and trial.id not in stale:
        return replace(trial, state=State.DONE, result=seen.result)
    directory = run.trial(trial.id)
    try:
        task = (queued or {}).get(trial.id)
        if task is not None:
            return _in_queue(trial, task, directory, seen.last)
        if trial.id in stale:
            return replace(trial, state=State.STALE, detail=stale[trial.id])
        failure = read_json(directory.failure)
        if failure is None or _is_earlier(failure, given):
            trial = _without_record(trial, directory, seen.last, given, cancelled, queued is not None)
            before = f"before that: {_failed(trial, failure, directory).detail}" if failure is not None else ""
            return replace(trial, detail=_sentence([trial.detail, before]))
        return _failed(trial, failure, directory)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        return replace(trial, state=State.UNKNOWN, detail=f"its files are damaged: {error}")


def _without_record(
    trial: TrialState, directory: TrialDir, last: Mapping[str, Any], given: Given | None, cancelled: set[str],
    answered: bool,
) -> TrialState:  # fmt: skip
    """One that is in no queue, as far as that has answered, and has left neither a result nor a record of failure."""
    if not answered and last and "end" not in last:
        detail = "when it was last heard of"
        return replace(trial, state=State.RUNNING, progress=read_json(directory.progress) or {}, detail=detail)
    if trial.id in cancelled and answered:
        return replace(trial, state=State.CANCELLED, detail=_saved(last))
    if given is None and not last:
        return trial
    if not answered:
        return replace(trial, state=State.UNKNOWN, detail="the queue gives no answer")
    if last.get("exit_code") == 0 and not _is_earlier(last, given):
        detail = "it ended well, but its result is gone or cannot be seen here yet: `recipe submit` makes it again"
        return replace(trial, state=State.UNKNOWN, detail=detail)
    detail = _saved(last) or "in no queue, and it left no result"
    return replace(trial, state=State.UNKNOWN, detail=detail, doubtful=True)


def _is_earlier(record: Mapping[str, Any], given: Given | None) -> bool:
    """Tell whether a record is older than the job that a trial was last given to, which has left none."""
    if given is None or record.get("job", given.task) == given.task:
        return False
    time = record.get("time", record.get("start"))
    return isinstance(time, int | float) and time < given.job.time


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
    if failure.get("kind") == "needs":
        return replace(trial, state=State.BLOCKED, detail=failure["reason"])
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
    last = directory.last_attempt()
    began = bool(last) and not _is_earlier(last, given)  # else all that there may be is what the script printed
    verdict = verdict or (_verdict_in_log(directory, trial.attempts) if began else None)
    printed = message(lines_of(read_tail(given.output(run))), None)
    if verdict is None or verdict.state not in VERDICTS:  # as RUNNING, where accounts lag behind
        return _undecided(trial, directory, verdict, "" if began else printed)
    state = VERDICTS[verdict.state]
    if state is State.FAILED and trial.state is State.FAILED:
        return trial  # the trial's own words are the better ones
    details = [verdict_text(verdict, read_progress(directory), retry_command(directory))]
    if trial.state is State.FAILED and state is not State.TIMEOUT:
        details.append(trial.detail)
    by_script = state is State.FAILED or not began  # else the script has nothing to say of the end
    return replace(trial, state=state, detail=_sentence(details, printed if by_script else ""))


def _verdict_in_log(directory: TrialDir, attempt: int) -> TaskState | None:
    """Slurm's own line in the log, for where there are no accounts."""
    verdict = slurms_verdict(lines_of(read_tail(directory.log(attempt))))
    return TaskState(verdict) if verdict else None


def _undecided(trial: TrialState, directory: TrialDir, verdict: TaskState | None, printed: str) -> TrialState:
    if trial.state is not State.UNKNOWN:
        return trial
    word = f"{verdict.state} {verdict.reason}".strip() if verdict is not None else ""
    progress = read_progress(directory)
    kept = str(progress) if progress.saved is not None and not progress.stopped else ""
    again = (
        f"`{retry_command(directory)}` runs it again" if word in ("", "COMPLETED") else ""
    )  # else accounts lag behind
    return replace(trial, detail=_sentence([word, trial.detail, kept, again], printed))


def _sentence(details: Iterable[str], printed: str = "") -> str:
    """The details, and at the end what a program printed."""
    return ": ".join(filter(None, ["; ".join(filter(None, details)), printed]))
