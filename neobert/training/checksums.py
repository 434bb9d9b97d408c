"""Checksums of files, which tell what sizes do not: a page of zeros, a flipped bit.

The hash is xxh3 (https://xxhash.com). One core computes it at 6 GB/s; crc32 of zlib comes to 1.8 GB/s there, sha256 to
1.2 GB/s and blake2b to 0.6 GB/s. A checkpoint of 1 GB takes 0.2 s, about a tenth of the time that saving it takes on a
local disk. xxhash and file reads leave other threads running, so several files are read at once.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import xxhash

Result = TypeVar("Result")

KIND = "xxh3_128"
THREADS = 8
CHUNK = 1 << 20
"""Larger chunks do not fit into a core's cache: 16 MB take four times as long."""


def checksum(file: Path) -> str:
    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    view = memoryview(buffer)
    with file.open("rb", buffering=0) as opened:
        while size := opened.readinto(buffer):
            digest.update(view[:size])
    return digest.hexdigest()


def in_threads(function: Callable[[str], Result], names: Iterable[str]) -> dict[str, Result]:
    """Return the results of a function by the names of files; several are looked at together."""
    names = list(names)
    with ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(names, threads.map(function, names), strict=True))


def damage_of(file: Path, expected: str | None) -> str | None:
    """Return how a file differs from what was written; without an expected checksum, as far as it tells itself."""
    try:
        if expected is None:
            return _own_damage(file)
        actual = checksum(file)
        if actual == expected:
            return None
        return _own_damage(file) or f"is damaged: its checksum is {actual} instead of {expected}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _own_damage(file: Path) -> str | None:
    """Return what the format itself tells: no file of a checkpoint begins with zeros; torch writes zips with CRCs."""
    with file.open("rb") as opened:
        start = opened.read(16)
    if start and not any(start):
        return "holds zeros instead of data"
    if not start.startswith(b"PK\3\4"):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except Exception as error:  # noqa: BLE001  # BadZipFile, ValueError, RuntimeError: whatever its bytes lead to
        return f"is damaged ({error})"
    return f"is damaged in its part {broken}" if broken else None


_OWNED = re.compile(r"(?:zero_pp_rank|rng_state)_(\d+)")
"""Files that each process writes for itself: shards of ZeRO, the state of random numbers."""


def is_share(name: str, process: int, processes: int) -> bool:
    """Return True for the files that this process looks at: those that it has written, which are in its node's memory.

    Every file belongs to one of the processes, and to the first one where the name does not tell.
    """
    owner = _OWNED.search(name)
    return (int(owner[1]) if owner else 0) % processes == process
