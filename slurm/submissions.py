"""A run's jobs: what was given to which queue, what was cancelled, and which trials each array task runs."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from neobert.config import ConfigError
from slurm.backends import QueuedTask, get_backend
from slurm.render import Chunk, Job
from slurm.rundir import RunDir, TrialDir, append_line, read_json, read_log
from slurm.user import user_name

ID = re.compile(rb'\{"id": "([0-9a-f]+)"')
"""How a line of a job's trials.jsonl begins."""


@dataclass(frozen=True)
class Submitted:
    """A line of submissions.jsonl: a script that was handed to a queue, once before and once after the answer."""

    stage: str
    directory: str
    chunk: int
    offset: int
    tasks: int
    pack: int
    array: bool  # whether the queue names its tasks JOB_INDEX
    backend: str
    name: str
    comment: str
    id: str | None  # None: handed over, and no answer noted
    time: float
    rendered: bool = False  # printed for a user, who may give it to sbatch any number of times

    def manifest(self, run: RunDir) -> Path:
        """The trials of its stage's jobs, in the order of the array tasks."""
        return run.job(self.stage, self.directory) / "trials.jsonl"


FIELDS = {field.name for field in fields(Submitted)}


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


@dataclass(frozen=True)
class InFlight:
    """An array task in a queue, and those of its trials that have not ended."""

    task: QueuedTask
    backend: str
    stage: str
    trials: tuple[str, ...]
    cancelled: bool = False  # and is about to end
    unlisted: bool = False  # which trials it runs cannot be told


class Ledger:
    """The submissions of a run, to all backends or to one.

    Which trials a job runs is read from its list when it is asked for, and once.
    """

    def __init__(self, run: RunDir, backend: str | None = None):
        self.run = run
        self.jobs = [job for job in read_submissions(run) if backend in (None, job.backend)]
        self._cancelled = read_cancelled(run)
        self._lists: dict[Path, list[str] | None] = {}

    def tasks(self, job: Submitted) -> list[list[str]] | None:
        """The ids of each array task's trials; None where the list is gone, or too short for the job."""
        path = job.manifest(self.run)
        if path not in self._lists:
            self._lists[path] = _read_ids(path)
        ids = self._lists[path]
        starts = range(job.offset * job.pack, (job.offset + job.tasks) * job.pack, job.pack)
        if ids is not None and len(ids) <= max(starts, default=-1):
            ids = self._lists[path] = None
        return None if ids is None else [ids[start : start + job.pack] for start in starts]

    def last_given(self, trials: Iterable[str]) -> dict[str, Given]:
        """For each of these trials the job that it was last given to; jobs that no queue took are left out.

        Reads no list of a submission before the one that accounts for the last of them.
        """
        left, last = set(trials), {}
        for job in reversed(self.jobs):
            if not left:
                break
            for index, ids in enumerate(self.tasks(job) or [] if job.id is not None else []):
                for trial in left.intersection(ids):
                    last[trial] = Given(job, index)
                    left.discard(trial)
        return last

    def was_cancelled(self, job: Submitted, task: str) -> bool:
        """Whether an array task was cancelled since its job was submitted: an earlier job may have had the same id."""
        return self._cancelled.get(task, 0.0) > job.time

    @property
    def warnings(self) -> list[str]:
        """What cannot be known, because it was removed. Speaks of the lists that were asked for."""
        gone = [path.relative_to(self.run.path) for path, ids in self._lists.items() if ids is None]
        lists = [f"{path} is gone or damaged: which trials its jobs run is not known" for path in gone]
        return [_LOST.format(self.run.submissions.name), *lists] if is_lost(self.run) else lists


_LOST = "{} is gone: which jobs of the run are in the queue is not known"


def is_lost(run: RunDir) -> bool:
    """Tell whether the list of the run's jobs was removed: it is older than any script of a job."""
    return not run.submissions.exists() and any(run.path.glob("stages/*/*/job*.sh"))


def check_not_lost(run: RunDir) -> None:
    """Raises `ConfigError` where nobody can tell what is queued already."""
    if is_lost(run):
        message = _LOST.format(run.submissions)
        raise ConfigError(f"{message}. If none is (squeue --me), make an empty file of that name and try again")


def _read_ids(path: Path) -> list[str] | None:
    """The ids alone: the settings after them are megabytes where trials are thousands."""
    try:
        with path.open("rb") as lines:
            matches = [ID.match(line) for line in lines]
    except OSError:
        return None
    ids = [match[1].decode() for match in matches if match]
    return ids if len(ids) == len(matches) else None


def hand_over(run: RunDir, job: Job, chunk: Chunk, rendered: bool = False) -> Submitted:
    """Notes, before it happens, that a script goes to the queue: should the answer get lost, it is still looked for."""
    entry = Submitted(
        stage=job.stage.name, directory=job.directory.name, chunk=chunk.number, offset=chunk.offset, tasks=chunk.tasks,
        pack=job.stage.array.pack, array=job.backend == "local" or job.is_array, backend=job.backend, name=job.name,
        comment=job.comment(chunk), id=None, time=time.time(), rendered=rendered,
    )  # fmt: skip
    note(run, entry)
    return entry


def note(run: RunDir, entry: Submitted) -> None:
    row = {key: value for key, value in vars(entry).items() if key != "rendered" or value}
    append_line(run.submissions, json.dumps(row))


def read_submissions(run: RunDir) -> list[Submitted]:
    """All jobs of a run, oldest first; one whose id came to be known appears with it, and once for each id."""
    found: dict[tuple[str, float], dict[str | None, Submitted]] = {}
    for row in read_log(run.submissions):
        if FIELDS - row.keys() <= {"rendered"}:
            job = Submitted(**{key: value for key, value in row.items() if key in FIELDS})
            found.setdefault((job.comment, job.time), {})[job.id] = job
    return [job for jobs in found.values() for job in jobs.values() if job.id is not None or len(jobs) == 1]


def note_cancelled(run: RunDir, names: Iterable[str]) -> None:
    """Notes that array tasks are cancelled; nothing else may remember it."""
    for name in names:
        append_line(run.cancellations, json.dumps({"task": name, "time": time.time()}))


def read_cancelled(run: RunDir) -> dict[str, float]:
    """The names of all array tasks that were cancelled, and when."""
    rows = read_log(run.cancellations)
    return {row["task"]: row["time"] for row in rows if isinstance(row.get("time"), int | float) and "task" in row}


def in_flight(ledger: Ledger) -> list[InFlight]:
    """The array tasks that wait or run now. Raises `ConfigError` where a queue gives no answer.

    Jobs are asked for by their ids, whoever submitted them. Those of no known id are asked for by name: their
    submission was cut off before it noted the id, or their rendered script was piped to sbatch, even twice. Their ids
    are noted now, for when they have left the queue.
    """
    return [
        flight
        for backend in sorted({job.backend for job in ledger.jobs})
        for flight in _of_backend(ledger, backend, [job for job in ledger.jobs if job.backend == backend])
    ]


def _of_backend(ledger: Ledger, backend: str, jobs: list[Submitted]) -> Iterator[InFlight]:
    known = {job.id: job for job in jobs if job.id is not None}
    open_ended = [job for job in jobs if job.id is None or job.rendered]
    names = {job.name for job in open_ended}
    for task in get_backend(backend, ledger.run.path).queue(known.keys(), names):
        candidates = [known[task.job]] if task.job in known else open_ended
        matches = [job for job in candidates if _is_of(task, job, ledger.run)]
        if not matches:
            continue  # somebody else's: queues use their numbers again, and others use our names
        exact = [job for job in matches if job.comment == task.comment]
        job = (exact or matches)[0]
        if not exact and len({job.chunk for job in matches}) > 1:  # the comment alone tells the stage's scripts apart
            yield InFlight(task, backend, job.stage, (), unlisted=True)
            continue
        if task.job not in known:
            known[task.job] = replace(job, id=task.job)
            _adopt(ledger.run, known[task.job])
        yield _flight(ledger, backend, job, task)


def _is_of(task: QueuedTask, job: Submitted, run: RunDir) -> bool:
    """Whether a task in the queue is one of this submission.

    A site or a user may have changed its comment and its name, but hardly where its output goes. The directory's name
    is a hash of the script and of the run's place, so that no other job can have it.
    """
    return task.comment == job.comment or f"/{run.path.name}/stages/{job.stage}/{job.directory}/" in task.output


def _flight(ledger: Ledger, backend: str, job: Submitted, task: QueuedTask) -> InFlight:
    tasks, cancelled = ledger.tasks(job), ledger.was_cancelled(job, task.name)
    if tasks is None:
        return InFlight(task, backend, job.stage, (), cancelled, unlisted=True)
    ids = tasks[task.index] if task.index < len(tasks) else []  # a rendered script, submitted with more tasks
    left = tuple(id for id in ids if not _over(ledger.run.trial(id), task))
    return InFlight(task, backend, job.stage, left, cancelled)


def _adopt(run: RunDir, entry: Submitted) -> None:
    if os.access(run.submissions, os.W_OK):  # a colleague's run can be looked at, and is not to be changed
        note(run, entry)


def by_trial(flights: Iterable[InFlight]) -> dict[str, QueuedTask]:
    """For each trial in flight its array task; where there are two, one that runs."""
    tasks: dict[str, QueuedTask] = {}
    for flight in flights:
        for trial in flight.trials:
            if trial not in tasks or flight.task.state.state == "RUNNING":
                tasks[trial] = flight.task
    return tasks


def by_owner(flights: Iterable[InFlight]) -> list[tuple[str, list[InFlight]]]:
    """Array tasks by the user whose they are, one's own last: what another may refuse comes before."""
    owners: dict[str, list[InFlight]] = {}
    for flight in flights:
        owners.setdefault(flight.task.user, []).append(flight)
    return sorted(owners.items(), key=lambda item: (item[0] in ("", user_name()), item[0]))


def _over(trial: TrialDir, task: QueuedTask) -> bool:
    """Whether a trial has ended although its array task still runs: there are others in it, or it is just ending."""
    if task.state.state == "PENDING":
        return False
    if trial.result.exists():
        return True
    try:
        failure = read_json(trial.failure) or {}
    except ConfigError:  # damaged: `run_state` says so
        return False
    return failure.get("job") == task.name
