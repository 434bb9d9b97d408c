"""A run's jobs: what was given to which queue, what was cancelled, and which trials each array task runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from slurm.backends import QueuedTask, get_backend
from slurm.render import Chunk, Job
from slurm.rundir import RunDir, TrialDir, append_line, read_json, read_jsonl, read_log


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

    def trials(self, run: RunDir) -> list[list[str]]:
        """The ids of each array task's trials."""
        ids = [row["id"] for row in read_jsonl(run.job(self.stage, self.directory) / "trials.jsonl")]
        starts = range(self.offset * self.pack, (self.offset + self.tasks) * self.pack, self.pack)
        return [ids[start : start + self.pack] for start in starts]


@dataclass(frozen=True)
class InFlight:
    """An array task in a queue, and those of its trials that have not ended."""

    task: QueuedTask
    backend: str
    trials: tuple[str, ...]


def hand_over(run: RunDir, job: Job, chunk: Chunk) -> Submitted:
    """Notes, before it happens, that a script goes to the queue: should the answer get lost, it is still looked for."""
    entry = Submitted(
        stage=job.stage.name, directory=job.directory.name, chunk=chunk.number, offset=chunk.offset, tasks=chunk.tasks,
        pack=job.stage.array.pack, array=job.backend == "local" or job.is_array, backend=job.backend, name=job.name,
        comment=job.comment(chunk), id=None, time=time.time(),
    )  # fmt: skip
    note(run, entry)
    return entry


def note(run: RunDir, entry: Submitted) -> None:
    append_line(run.submissions, json.dumps(vars(entry)))


def read_submissions(run: RunDir) -> list[Submitted]:
    """All jobs of a run, oldest first; one whose id came to be known appears with it, and once for each id."""
    found: dict[tuple[str, float], dict[str | None, Submitted]] = {}
    for row in read_log(run.submissions):
        job = Submitted(**row)
        found.setdefault((job.comment, job.time), {})[job.id] = job
    return [job for jobs in found.values() for job in jobs.values() if job.id is not None or len(jobs) == 1]


def note_cancelled(run: RunDir, names: Iterable[str]) -> None:
    """Notes that array tasks are cancelled; nothing else may remember it."""
    for name in names:
        append_line(run.cancellations, json.dumps({"task": name, "time": time.time()}))


def read_cancelled(run: RunDir) -> set[str]:
    """The names of all array tasks that were cancelled."""
    return {row["task"] for row in read_log(run.cancellations)}


def in_flight(run: RunDir, submissions: Iterable[Submitted]) -> list[InFlight]:
    """The array tasks that wait or run now. One question for each backend; raises `ConfigError` without an answer.

    Jobs are recognised by the comment that they were submitted with. So those too are found whose submission was cut
    off before it noted the id, or whose rendered script was piped to sbatch, even twice. Their ids are noted now, for
    when they have left the queue.
    """
    jobs = list(submissions)
    known = {(job.comment, job.id) for job in jobs}
    found: list[InFlight] = []
    for backend in sorted({job.backend for job in jobs}):
        scripts = {job.comment: job for job in jobs if job.backend == backend}
        trials: dict[str, list[list[str]]] = {}
        for task in get_backend(backend, run.path).queue({job.name for job in scripts.values()}):
            if task.comment not in scripts:
                continue
            if task.comment not in trials:
                trials[task.comment] = scripts[task.comment].trials(run)
            if (task.comment, task.job) not in known:
                known.add((task.comment, task.job))
                _adopt(run, replace(scripts[task.comment], id=task.job))
            lists = trials[task.comment]
            ids = lists[task.index] if task.index < len(lists) else []  # a rendered script, submitted with more tasks
            found.append(InFlight(task, backend, tuple(id for id in ids if not _over(run.trial(id), task))))
    return found


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


def _over(trial: TrialDir, task: QueuedTask) -> bool:
    """Whether a trial has ended although its array task still runs: there are others in it, or it is just ending."""
    if task.state.state == "PENDING":
        return False
    if trial.result.exists():
        return True
    failure: dict[str, Any] = read_json(trial.failure) or {}
    return failure.get("job") == task.name
