"""`recipe cancel` notes what the queue has cancelled, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm import cancel
from slurm.backends import QueuedTask, TaskState
from slurm.cancel import Cancelled
from slurm.rundir import RunDir
from slurm.submissions import InFlight, read_cancelled
from slurm.user import user_name


@dataclass
class Queue:
    """A queue that cancels, or refuses to."""

    refuses: bool = False
    asked: list[str] = field(default_factory=list)

    def cancel(self, names: Sequence[str]) -> None:
        self.asked += names
        if self.refuses:
            raise ConfigError("scancel failed")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """With two array tasks of one job in it, of which the second runs."""
    tasks = [QueuedTask(f"7_{n}", n, TaskState(state), "c") for n, state in enumerate(("PENDING", "RUNNING"))]
    flights = [InFlight(task, "sbatch", "glue", (f"trial{task.index}",)) for task in tasks]
    queue = Queue()
    monkeypatch.setattr(cancel, "in_flight", lambda ledger: flights)
    monkeypatch.setattr(cancel, "get_backend", lambda name, run: queue)
    return queue


def test_tasks_that_were_cancelled_are_noted(queue: Queue, tmp_path: Path) -> None:
    assert cancel.cancel_run(RunDir(tmp_path)) == Cancelled(tasks=2, running=1)
    assert queue.asked == ["7"], "one word for the whole job"
    assert read_cancelled(RunDir(tmp_path)).keys() == {"7_0", "7_1"}


def test_tasks_that_the_queue_refused_to_cancel_are_not_noted(queue: Queue, tmp_path: Path) -> None:
    queue.refuses = True
    with pytest.raises(ConfigError, match="scancel failed"):
        cancel.cancel_run(RunDir(tmp_path))
    assert queue.asked
    assert not read_cancelled(RunDir(tmp_path)), "or submissions would wait for the end of what goes on"


def test_the_own_tasks_are_cancelled_where_those_of_another_user_are_refused(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(job: str, user: str) -> InFlight:
        return InFlight(QueuedTask(job, 0, TaskState("PENDING"), "c", user=user), "sbatch", "glue", (f"trial{job}",))

    def refuse(names: Sequence[str]) -> None:
        queue.asked += names
        if "8" in names:
            raise ConfigError("scancel failed: Access/permission denied")

    monkeypatch.setattr(cancel, "in_flight", lambda ledger: [task("8", "alice"), task("9", user_name())])
    monkeypatch.setattr(queue, "cancel", refuse)
    with pytest.raises(ConfigError, match=rf"8 of alice cannot be cancelled by {user_name()}: .*permission denied"):
        cancel.cancel_run(RunDir(tmp_path))
    assert queue.asked == ["9", "8"]
    assert read_cancelled(RunDir(tmp_path)).keys() == {"9"}
