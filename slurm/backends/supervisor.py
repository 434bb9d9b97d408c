"""The local queue's process for one job: starts its array tasks when there is room, and writes down what happens.

Run as `python -m slurm.backends.supervisor DIRECTORY`, by the local backend. Its children are told to stop when it
dies, whatever it died of, so that a task never runs unseen.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import private
from slurm.backends.local import alive, environment
from slurm.backends.slots import Slots, take
from slurm.locks import locked

POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
REQUEUE = 85  # a trial's exit status for: checkpointed, run me again


@dataclass
class Running:
    process: subprocess.Popen
    slots: Slots
    stop_at: float | None = None  # when it is killed, once it was asked to stop


class Supervisor:
    def __init__(self, directory: Path):
        self.directory = directory
        self.job: dict[str, Any] = json.loads((directory / "job.json").read_text())
        self.pending = list(range(self.job["tasks"]))
        self.requeues = dict.fromkeys(self.pending, 0)
        self.running: dict[int, Running] = {}
        self.cancelled: set[int] = set()
        self.stop = False
        self.events = private.append(directory / "events.jsonl")

    def run(self) -> None:
        """Until every task has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stop", True))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.note(state="START", pid=os.getpid())
        while self.pending or self.running:
            self.reap()
            self.obey()
            while self.start_next():
                pass
            time.sleep(POLL_SECONDS)
        self.note(state="END")

    def note(self, **event: Any) -> None:
        self.events.write(json.dumps({**event, "time": time.time()}).encode() + b"\n")
        self.events.flush()

    def start_next(self) -> bool:
        """Starts the next task if the parallel limit, the jobs it waits for and the machine allow it."""
        parallel = self.job["parallel"]
        if not self.pending or (parallel is not None and len(self.running) >= parallel) or not self.ready():
            return False
        slots = take(self.job["cpus"], self.job["gpus"])
        if slots is None:
            return False
        task = self.pending.pop(0)
        added = environment(self.directory.name, task, slots.gpus)
        with private.append(Path(self.job["script"]).parent / "logs" / f"{self.directory.name}_{task}.out") as output:
            process = subprocess.Popen(
                ["bash", self.job["script"]], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **added}, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.running[task] = Running(process, slots)
        self.note(task=task, state="RUNNING", pid=process.pid)
        return True

    def ready(self) -> bool:
        """Whether the jobs that this one waits for have ended; the script looks itself for their results."""
        while self.job["after"] and not alive(self.directory.parent / self.job["after"][0]):
            self.job["after"].pop(0)
        return not self.job["after"]

    def reap(self) -> None:
        for task, running in list(self.running.items()):
            status = running.process.poll()
            if status is None:
                continue
            del self.running[task]
            running.slots.release()
            if running.stop_at is not None and status != 0:
                self.note(task=task, state="CANCELLED", exit=status)
            elif status == REQUEUE and self.requeues[task] < self.job["max_requeues"]:
                self.requeues[task] += 1
                self.pending.insert(0, task)
                self.note(task=task, state="PENDING", reason="Requeued")
            else:
                self.note(task=task, state="COMPLETED" if status == 0 else "FAILED", exit=status)

    def obey(self) -> None:
        """Cancels what was asked to be cancelled, or all when this process is told to end."""
        if not self.stop and (self.directory / "cancel").exists():
            self.stop = True
        asked = {int(path.name.removeprefix("cancel-")) for path in self.directory.glob("cancel-*")}
        for task in [task for task in self.pending if self.stop or task in asked]:
            self.pending.remove(task)
            self.note(task=task, state="CANCELLED", reason="cancelled")
        for task, running in self.running.items():
            if (self.stop or task in asked) and running.stop_at is None:
                running.process.send_signal(signal.SIGTERM)
                running.stop_at = time.monotonic() + self.job["grace_seconds"]
            elif running.stop_at is not None and time.monotonic() > running.stop_at:
                os.killpg(running.process.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(directory: Path) -> None:
    with locked(directory / "lock", print):
        Supervisor(directory).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
