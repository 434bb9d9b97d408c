"""File locks between processes. The kernel drops them with their holder, and the file goes with the last holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.errors import ClusterError


class FileLock:
    """An advisory lock, shared by many or exclusive to one. Not for use by several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, *, shared: bool = False, timeout: float = 600) -> None:
        """Waits up to `timeout` seconds for it."""
        until = time.monotonic() + timeout
        while not self._try(fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise ClusterError(f"{self.path} is held by another process (`fuser {self.path}` names it)")
            time.sleep(0.05)

    def try_exclusive(self) -> bool:
        """Makes it exclusive if nobody else holds it. If somebody does, or took over in between, nothing is held."""
        if self._try(fcntl.LOCK_EX):
            return True
        self._close()
        return False

    def share(self) -> None:
        """Makes an exclusive lock a shared one."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def release(self) -> None:
        """Also removes the file, which is why only the one exclusive holder may call it."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self._close()

    def _try(self, kind: int) -> bool:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._is_at_its_path():
            return True
        self._close()  # a holder removed it while we waited: what we locked is not what others will lock
        return False

    def _is_at_its_path(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def locked(path: Path, timeout: float = 600) -> Iterator[None]:
    lock = FileLock(path)
    lock.acquire(timeout=timeout)
    try:
        yield
    finally:
        lock.release()
