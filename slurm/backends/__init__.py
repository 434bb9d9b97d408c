"""Where jobs run: Slurm (through `sbatch` or `submitit`) or this machine (`local`), behind one Protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neobert.config import ConfigError
from slurm.render import Chunk, Job


@dataclass(frozen=True, slots=True)
class TaskState:
    """What a queue says of one array task, in Slurm's words (PENDING, RUNNING, COMPLETING, FAILED, ...)."""

    state: str
    reason: str = ""


TaskKey = tuple[str, int]
"""A job's id and the index of one of its array tasks (0 for a job that is no array)."""

REST = -1
"""In a history, the index that stands for all tasks of a job that are not told of one by one."""


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """One array task in a queue: what the queue calls it (`JOB_INDEX`, or `JOB` for one that is no array), its index,
    the comment of its job, the pattern of its output file, and the user whose it is (empty: no matter)."""

    name: str
    index: int
    state: TaskState
    comment: str
    output: str = ""
    user: str = ""

    @property
    def job(self) -> str:
        return self.name.partition("_")[0]


class Backend(Protocol):
    """Submits, cancels and asks. Every method raises `ConfigError` with the queue's own message when it refuses."""

    def check(self, jobs: Sequence[Job]) -> None:
        """Raises if these jobs cannot be submitted here at all."""

    def submit(self, script: Path, job: Job, chunk: Chunk, after: Sequence[str]) -> str:
        """Queues a script and returns the job's id; it waits for the jobs of `after` to end, well or badly."""

    def queue(self, jobs: Collection[str], names: Collection[str]) -> list[QueuedTask]:
        """All waiting and running tasks of jobs with these ids, and of any user's jobs with these names."""

    def history(self, job_ids: Iterable[str]) -> dict[TaskKey, TaskState]:
        """How tasks that left the queue ended, as far as that is known."""

    def cancel(self, names: Sequence[str]) -> None:
        """Ends jobs, and single array tasks by their names."""


BACKENDS = ("sbatch", "submitit", "local")


def get_backend(name: str, run: Path) -> Backend:
    """The backend of that name, for a run in the directory `run`; raises `ConfigError` for one that is not known."""
    if name == "local":
        from slurm.backends.local import LocalBackend

        return LocalBackend(run)
    if name == "submitit":
        from slurm.backends.submitit import SubmititBackend

        return SubmititBackend(run)
    if name == "sbatch":
        from slurm.backends.sbatch import SbatchBackend

        return SbatchBackend(run)
    raise ConfigError(f"there is no backend '{name}': expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
