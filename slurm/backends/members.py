"""The processes of an array task of the local queue, by /proc.

They share the session that the task's script was started in. A program may begin a session of its own; it still has the
mark of its task in its environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def members(session: int, variable: str) -> list[int]:
    """Return the processes that live, of that session or with that variable (`NAME=VALUE`); zombies have ended."""
    return [pid for pid in _own() if _lives_in(pid, session, variable.encode())]


def _own() -> Iterator[int]:
    """This user's processes, without this one."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                mine = entry.stat().st_uid == os.getuid()
            except FileNotFoundError:
                continue
            if mine:
                yield int(entry.name)


def _lives_in(pid: int, session: int, variable: bytes) -> bool:
    try:
        state, _, _, own, *_ = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if state in (b"Z", b"X"):
            return False
        return int(own) == session or variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
