"""Locks between processes, which end with their holder however that ends.

The kernel's (flock) where the file system has them. Some do not, as Lustre without an option of its mount: there a lock
is a file beside it that names its holder, `PATH.holder-N`. To take the lock is to create the file with the next number,
which one process alone can do, and only while the holder of the newest one is gone. So nobody ever removes a file that
another process may just have made its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from neobert.config import private

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
POLL_SECONDS = 0.05
LIMIT_SECONDS = 600.0


class Lock(Protocol):
    def release(self) -> None:
        """Lets go of it; the end of the process does so as well."""


@dataclass(frozen=True)
class KernelLock:
    file: IO[bytes]

    def release(self) -> None:
        self.file.close()


@dataclass(frozen=True)
class HolderFile:
    path: Path

    def release(self) -> None:
        with suppress(FileNotFoundError):  # removed by hand
            os.truncate(self.path, 0)


def try_lock(path: Path) -> Lock | None:
    """The lock of that file, or None while another process (or this one) holds it."""
    file = private.append(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        if error.errno not in UNSUPPORTED:
            raise
        return _try_holder_file(path)
    return KernelLock(file)


@contextmanager
def locked(
    path: Path, waiting: Callable[[str], None], patience: float = 0.0, limit: float = LIMIT_SECONDS
) -> Iterator[bool]:
    """Holds the lock during the block; yields whether it had to wait.

    After `patience` seconds `waiting` is called once, with a text about who holds it. Raises `TimeoutError` after
    `limit` seconds: whoever can open the file can also hold it for ever.
    """
    began, announced, waited = time.monotonic(), False, False
    while (lock := try_lock(path)) is None:
        waited = True
        if not announced and time.monotonic() - began >= patience:
            waiting(_describe_holder(path))
            announced = True
        if time.monotonic() - began >= limit:
            text = f"waited {limit:.0f} s for {_describe_holder(path)}, which holds the lock: end it, or try again"
            raise TimeoutError(errno.ETIMEDOUT, text, str(path))
        time.sleep(POLL_SECONDS)
    try:
        yield waited
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock; needs no right to write."""
    try:
        with private.observe(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        newest = _newest(path)
        return newest is not None and _is_held(newest)
    return False


@cache
def machine_id() -> str:
    """Return what tells this machine from others with the same file systems; unlike the hostname it never changes."""
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8").strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()


# Files that name their holder


def _try_holder_file(path: Path) -> HolderFile | None:
    newest = _newest(path)
    if newest is not None and _is_held(newest):
        return None
    number = 1 if newest is None else _number(newest) + 1
    new = path.with_name(f"{path.name}.holder-{number}")
    if not _create(new):
        return None  # another process was faster
    if _newest(path) != new:  # the look before was at an old state of the directory: it has a later holder
        new.unlink(missing_ok=True)
        return None
    for older in _holder_files(path):
        if _number(older) < number:
            older.unlink(missing_ok=True)
    return HolderFile(new)


def _create(path: Path) -> bool:
    """Makes the file with its whole content at once, or returns False where it exists."""
    aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with private.create(aside) as file:
        file.write(str(Holder.this_process()).encode())
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True


def _holder_files(path: Path) -> list[Path]:
    start = f"{path.name}.holder-"
    entries = path.parent.iterdir()
    return [entry for entry in entries if entry.name.startswith(start) and entry.name[len(start) :].isdecimal()]


def _newest(path: Path) -> Path | None:
    return max(_holder_files(path), key=_number, default=None)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_held(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True  # a later one has just taken its place
    try:
        return text != "" and Holder.parse(text).may_live()
    except ValueError:
        return True  # damaged: whether its process has ended cannot be known


def _describe_holder(path: Path) -> str:
    newest = _newest(path)
    text = newest.read_text(encoding="utf-8") if newest is not None and newest.exists() else ""
    if not text:
        return "another process"
    try:
        holder = Holder.parse(text)
    except ValueError:
        return f"another process (if there is none, remove {newest}, which is damaged)"
    return f"process {holder.pid} on {holder.host} (if that has ended, remove {newest})"


@dataclass(frozen=True)
class Holder:
    """A process, told apart from later ones with its number and from those of other machines and containers."""

    pid: int
    started: str
    boot: str
    pids: str
    machine: str
    host: str

    def __str__(self) -> str:
        return " ".join(map(str, vars(self).values()))

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Raises `ValueError` for a text that describes none."""
        pid, started, boot, pids, machine, host = text.split(" ")
        return cls(int(pid), started, boot, pids, machine, host)

    @classmethod
    def this_process(cls) -> Holder:
        pid = os.getpid()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return cls(pid, _start_time(pid) or "", boot, str(Path("/proc/self/ns/pid").readlink()), machine_id(),
                   socket.gethostname())  # fmt: skip

    def may_live(self) -> bool:
        """False only where it is sure that the process has ended: its machine cannot be asked from another one."""
        here = Holder.this_process()
        if self.machine != here.machine:
            return True
        if self.boot != here.boot:
            return False
        return self.pids != here.pids or _start_time(self.pid) in (self.started, None)


def _start_time(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; empty if it has ended, None if it is hidden from this user."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    except (FileNotFoundError, ProcessLookupError):
        return None if _is_hidden(pid) else ""


def _is_hidden(pid: int) -> bool:
    """Tell whether it is another user's process, on a machine where /proc shows only your own (`hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False
