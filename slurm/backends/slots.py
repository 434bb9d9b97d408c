"""This machine's processors and GPUs, shared out among all local queues of a user by file locks.

A lock goes away with the process that holds it, however that ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from neobert.config import ConfigError, private
from slurm.locks import Lock, locked, machine_id, try_lock


@cache
def machine_gpus() -> tuple[str, ...]:
    """The indices of this machine's NVIDIA GPUs, or those that CUDA_VISIBLE_DEVICES leaves."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(part.strip() for part in visible.split(",") if part.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return ()
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if not listed.returncode else []
    return tuple(str(index) for index in range(len(gpus)))


@dataclass(frozen=True)
class Slots:
    """Processors and GPUs that are taken until `release`."""

    gpus: tuple[str, ...]
    locks: tuple[Lock, ...]

    def release(self) -> None:
        for lock in self.locks:
            lock.release()


def take(cpus: int, gpus: int) -> Slots | None:
    """Takes that many processors (all, if the machine has fewer) and GPUs; None while they are not free together."""
    directory = slots_directory()
    processors = [str(index) for index in range(len(os.sched_getaffinity(0)))]
    with locked(directory / "lock", print, patience=60):
        taken = _lock(directory, "cpu", processors, min(cpus, len(processors)))
        if taken is None:
            return None
        cards = _lock(directory, "gpu", machine_gpus(), gpus)
        if cards is None:
            _release(taken)
            return None
    return Slots(tuple(name for name, _ in cards), tuple(lock for _, lock in (*taken, *cards)))


def _lock(directory: Path, kind: str, names: Sequence[str], count: int) -> list[tuple[str, Lock]] | None:
    taken: list[tuple[str, Lock]] = []
    for name in names:
        if len(taken) == count:
            break
        lock = try_lock(directory / f"{kind}-{name}")
        if lock is not None:
            taken.append((name, lock))
    if len(taken) == count:
        return taken
    _release(taken)
    return None


def _release(taken: list[tuple[str, Lock]]) -> None:
    for _, lock in taken:
        lock.release()


def slots_directory() -> Path:
    """A directory of this machine (homes, and some sites' TMPDIR, are shared by many) and of this user.

    Raises `ConfigError` where it cannot be used.
    """
    directory = Path(tempfile.gettempdir()) / f"recipe-slots-{os.getuid()}-{machine_id()[:12]}"
    try:
        return private.make_directory(directory)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; set TMPDIR to another directory") from None
