"""This machine's processors and GPUs, shared out among all local queues of a user by file locks.

A lock goes away with the process that holds it, however that ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from neobert.config import ConfigError


@cache
def machine_gpus() -> tuple[str, ...]:
    """The indices of this machine's NVIDIA GPUs, or those that CUDA_VISIBLE_DEVICES leaves."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(part.strip() for part in visible.split(",") if part.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ()
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if not listed.returncode else []
    return tuple(str(index) for index in range(len(gpus)))


@dataclass(frozen=True)
class Slots:
    """Processors and GPUs that are taken until `release`."""

    gpus: tuple[str, ...]
    files: tuple[IO[str], ...]

    def release(self) -> None:
        for file in self.files:
            file.close()


def take(cpus: int, gpus: int) -> Slots | None:
    """Takes that many processors (all, if the machine has fewer) and GPUs; None while they are not free together."""
    directory = _directory()
    processors = [str(index) for index in range(len(os.sched_getaffinity(0)))]
    with _alone(directory):
        taken = _lock(directory, "cpu", processors, min(cpus, len(processors)))
        if taken is None:
            return None
        cards = _lock(directory, "gpu", machine_gpus(), gpus)
        if cards is None:
            _close(taken)
            return None
    return Slots(tuple(name for name, _ in cards), tuple(file for _, file in (*taken, *cards)))


def _lock(directory: Path, kind: str, names: Sequence[str], count: int) -> list[tuple[str, IO[str]]] | None:
    taken: list[tuple[str, IO[str]]] = []
    for name in names:
        if len(taken) == count:
            break
        file: IO[str] = (directory / f"{kind}-{name}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            taken.append((name, file))
    if len(taken) == count:
        return taken
    _close(taken)
    return None


def _close(taken: list[tuple[str, IO[str]]]) -> None:
    for _, file in taken:
        file.close()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _directory() -> Path:
    """A directory of this machine (homes are often shared by many) and of this user."""
    directory = Path(tempfile.gettempdir()) / f"recipe-slots-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise ConfigError(f"{directory} belongs to somebody else; set TMPDIR to another directory")
    return directory
