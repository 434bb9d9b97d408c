"""The local queue's process for one job: starts its array tasks when there is room, and writes down what happens.

Run as `python -m slurm.backends.supervisor DIRECTORY SHA256`, by the local backend; the digest is the job script's.
All processes of a task end before its processors are given to another: those that outlive the script, as when it was
killed, become children of this process. The scripts are told to stop when it dies, whatever it died of.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, private
from slurm.backends.local import BASH, alive, environment, mark
from slurm.backends.members import members
from slurm.backends.slots import Slots, take
from slurm.locks import locked

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""For room on a full disk, once all else is done."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
REQUEUE = 85  # a trial's exit status for: checkpointed, run me again


@dataclass
class Running:
    process: subprocess.Popen
    slots: Slots
    cancelled: bool = False
    stop_at: float | None = None  # when it is killed, once it was asked to stop


class Events:
    """The job's history, a line for each event. What a full disk does not take is kept until it does."""

    def __init__(self, path: Path):
        self._file = private.append(path)
        self._waiting = b""

    def note(self, **event: Any) -> None:
        self._waiting += json.dumps({**event, "time": time.time()}).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what waits; tell whether nothing is left."""
        with suppress(OSError):
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file.fileno(), self._waiting) :]
        return not self._waiting


class Supervisor:
    def __init__(self, directory: Path, digest: str):
        self.directory = directory
        self.job: dict[str, Any] = json.loads((directory / "job.json").read_text())
        self.script = _read_sealed(Path(self.job["script"]), digest)
        self.pending = list(range(self.job["tasks"]))
        self.requeues = dict.fromkeys(self.pending, 0)
        self.running: dict[int, Running] = {}
        self.stop = False
        self.events = Events(directory / "events.jsonl")
        self.looked_at = 0  # when the directory had last changed, as it was looked at

    def run(self) -> None:
        """Until every task has ended."""
        woken = _wake_by_signals()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stop", True))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.events.note(state="START", pid=os.getpid())
        if not self.events.flush():
            raise ConfigError(f"{self.directory} cannot be written to (is the disk full?)")
        while self.pending or self.running:
            self.reap()
            self.obey()
            while self.start_next():
                pass
            if self.pending or self.running:
                select.select([woken], [], [], POLL_SECONDS)
                _drain(woken)
                self.events.flush()
        _reap_others(set())
        self.events.note(state="END")
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self.events.flush() and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)

    def start_next(self) -> bool:
        """Starts the next task if the parallel limit, the jobs it waits for and the machine allow it."""
        parallel = self.job["parallel"]
        if not self.pending or (parallel is not None and len(self.running) >= parallel) or not self.ready():
            return False
        slots = take(self.job["cpus"], self.job["gpus"])
        if slots is None:
            return False
        task = self.pending.pop(0)
        try:
            process = self.start(task, slots)
        except OSError as error:
            slots.release()
            self.events.note(task=task, state="FAILED", reason=f"{error.filename}: {error.strerror}")
        else:
            self.running[task] = Running(process, slots)
            self.events.note(task=task, state="RUNNING", pid=process.pid)
        return True

    def start(self, task: int, slots: Slots) -> subprocess.Popen:
        added = environment(self.directory, task, slots.gpus)
        with private.append(self._output(task)) as output:
            return subprocess.Popen(
                [BASH, f"/proc/self/fd/{self.script}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **added}, start_new_session=True, preexec_fn=_die_with_parent,
                pass_fds=[self.script],
            )  # fmt: skip

    def _output(self, task: int) -> Path:
        return Path(self.job["script"]).parent / "logs" / f"{self.directory.name}_{task}.out"

    def ready(self) -> bool:
        """Whether the jobs that this one waits for have ended; the script looks itself for their results."""
        while self.job["after"] and not alive(self.directory.parent / self.job["after"][0]):
            self.job["after"].pop(0)
        return not self.job["after"]

    def reap(self) -> None:
        """Takes note of the tasks that have ended with all their processes, and ends what is left of the others."""
        _reap_others({running.process.pid for running in self.running.values()})
        for task, running in list(self.running.items()):
            status = running.process.poll()
            if status is None or self._has_others(task, running):
                continue
            del self.running[task]
            running.slots.release()
            if running.cancelled and status != 0:
                self.events.note(task=task, state="CANCELLED", exit=status)
            elif status == REQUEUE and self.requeues[task] < self.job["max_requeues"]:
                self.requeues[task] += 1
                self.pending.insert(0, task)
                self.events.note(task=task, state="PENDING", reason="Requeued")
            else:
                self.events.note(task=task, state="COMPLETED" if status == 0 else "FAILED", exit=status)

    def _has_others(self, task: int, running: Running) -> bool:
        """Tell whether processes have outlived the script; if so, they are asked to end, and killed after a while."""
        others = self._members(task, running)
        if others and running.stop_at is None:
            running.stop_at = time.monotonic() + self.job["grace_seconds"]
            _send(others, signal.SIGTERM)
        elif others and running.stop_at is not None and time.monotonic() > running.stop_at:
            _send(others, signal.SIGKILL)
        return bool(others)

    def _members(self, task: int, running: Running) -> list[int]:
        return members(running.process.pid, mark(self.directory, task))

    def obey(self) -> None:
        """Cancels what was asked to be cancelled, or all when this process is told to end."""
        asked = self._asked()
        for task in [task for task in self.pending if self.stop or task in asked]:
            self.pending.remove(task)
            self.events.note(task=task, state="CANCELLED", reason="cancelled")
        for task, running in self.running.items():
            if (self.stop or task in asked) and not running.cancelled:
                running.cancelled, running.stop_at = True, time.monotonic() + self.job["grace_seconds"]
                running.process.send_signal(signal.SIGTERM)
            elif running.stop_at is not None and time.monotonic() > running.stop_at:
                _send(self._members(task, running), signal.SIGKILL)

    def _asked(self) -> set[int]:
        """The tasks that are to be cancelled, by files that were put into the directory since the last look."""
        changed = self.directory.stat().st_mtime_ns
        if changed == self.looked_at:
            return set()
        if time.time_ns() - changed > 2e9:  # clocks of file systems are coarse: a change right after it may look as old
            self.looked_at = changed
        self.stop = self.stop or (self.directory / "cancel").exists()
        return {int(path.name.removeprefix("cancel-")) for path in self.directory.glob("cancel-*")}

    def give_up(self, error: BaseException) -> None:
        """Ends all tasks, and notes that this process could not go on."""
        reason = f"the local queue ended: {error or type(error).__name__}"
        for task, running in self.running.items():
            _send(self._members(task, running), signal.SIGTERM)
        for task in (*self.running, *self.pending):
            self.events.note(task=task, state="FAILED", reason=reason)
        self.events.note(state="END", reason=reason)


def _read_sealed(script: Path, digest: str) -> int:
    """Returns a descriptor of a copy of the script that nobody can change; raises `ConfigError` for another script."""
    content = script.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(f"{script} is not what was submitted: somebody has changed it")
    descriptor = os.memfd_create(script.name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def _wake_by_signals() -> int:
    """Returns a descriptor that can be read when a child has ended, or this process was sent a signal."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reading


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def _reap_others(own: set[int]) -> None:
    """Lets go of processes that have become this one's children, because their parents ended before them."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        os.waitpid(ended.si_pid, 0)


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(directory: Path, digest: str) -> None:
    with locked(directory / "lock", print):
        supervisor = Supervisor(directory, digest)
        try:
            supervisor.run()
        except BaseException as error:
            supervisor.give_up(error)
            raise


def run(directory: Path, digest: str) -> int:
    try:
        main(directory, digest)
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2]))
