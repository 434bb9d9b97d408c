"""Files and directories that nobody but their user can change, also in places where others can write.

Under a name in /tmp, or in a cache of a group, somebody else may have put a link to one of the user's own files, a pipe
on which a reader waits for ever, or a file that they go on changing. Here a path is opened first, without following a
link or emptying anything, and then judged by its descriptor: what was judged is what is used.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotPrivate(PermissionError):
    """Raised for a path that somebody else made, or can change; `strerror` says why, and `filename` which it is."""

    def __init__(self, path: Path, why: str):
        super().__init__(errno.EPERM, why, str(path))


def make_directory(path: Path) -> Path:
    """Make a directory for its user alone, or take the one that is there if it is theirs; return its path.

    Others lose the right to write to it. Raises `NotPrivate`, and `OSError` where none can be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mode = _check_owner(path, descriptor, (os.geteuid(),))
        if mode & _OTHERS_WRITE:
            os.fchmod(descriptor, stat.S_IMODE(mode) & ~_OTHERS_WRITE)
    finally:
        os.close(descriptor)
    return path


def why_not_private(path: Path) -> str | None:
    """Return how others could change what lies in a directory, None where only its user and root can."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"is a link (to {path.readlink()})"
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to {_name(found.st_uid)}"
    if found.st_mode & _OTHERS_WRITE:
        return f"can be written by others (its mode is {stat.S_IMODE(found.st_mode):04o})"
    return None


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read that nobody but its user and root can have written.

    Raises `NotPrivate`, and `FileNotFoundError` where there is none.
    """
    descriptor = _open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        mode = _check_owner(path, descriptor, (os.geteuid(), 0))
        _check_regular(path, mode)
        if mode & _OTHERS_WRITE:
            raise NotPrivate(path, f"can be written by others (its mode is {stat.S_IMODE(mode):04o})")
        yield file


def create(path: Path, mode: int = 0o666) -> IO[bytes]:
    """Make a new file, in the place of what a process that was killed may have left under that name."""
    path.unlink(missing_ok=True)
    return os.fdopen(_open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "r+b")


def append(path: Path) -> IO[bytes]:
    """Open a file to add to it, or to lock it; make it where there is none. It may be another user's: some share runs.

    Raises `NotPrivate` for anything but a file of that very name.
    """
    return _regular(path, _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b")


def observe(path: Path) -> IO[bytes]:
    """Open a file to see whether it is locked, whoever made it. Raises `NotPrivate` as `append` does."""
    return _regular(path, _open(path, os.O_RDONLY), "rb")


def _regular(path: Path, descriptor: int, mode: str) -> IO[bytes]:
    file = os.fdopen(descriptor, mode)
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
    except NotPrivate:
        file.close()
        raise
    return file


def _open(path: Path, flags: int, mode: int = 0o666) -> int:
    try:
        return os.open(path, flags | _SAFELY, mode)
    except OSError:
        if path.is_symlink():
            raise NotPrivate(path, f"is a link (to {path.readlink()})") from None
        raise


def _check_owner(path: Path, descriptor: int, owners: tuple[int, ...]) -> int:
    found = os.fstat(descriptor)
    if found.st_uid not in owners:
        raise NotPrivate(path, f"belongs to {_name(found.st_uid)}")
    return found.st_mode


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotPrivate(path, "is not a file")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
