"""The files that text comes from, opened here or at any place that fsspec reaches (`hf://`, `s3://`, ...).

What goes wrong with a remote file is tried again before it is told; every message names the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import fsspec
import pyarrow

from neobert.config import ConfigError
from neobert.config.paths import why_missing
from neobert.data.examples import at
from neobert.data.text.fetched import here
from neobert.errors import RunError

log = logging.getLogger(__name__)
Found = TypeVar("Found")

Kind = Literal["text", "jsonl", "parquet", "arrow", "generated"]
KINDS: dict[str, Kind] = {
    ".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
    ".arrow": "arrow",
}  # fmt: skip
COMPRESSED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda file: io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd")),
}
EXPECTED = f"expected {', '.join(KINDS)}; text and JSON lines also compressed: {', '.join(COMPRESSED)}"

THREADS = 16
"""So many files are looked at together: remote ones take their time to answer."""
TRIES = 6
FIRST_WAIT = 1.0
"""Seconds before a failed read of a remote file is tried again; twice as long each time."""

MALFORMED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, pyarrow.ArrowException)
"""What libraries raise for contents that they cannot read."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "Last-Modified")
"""What file systems call that which changes with a file's contents."""


def is_remote(path: str) -> bool:
    return "://" in path


def kind_of(path: str) -> Kind | None:
    """What the name says of the format; None for names that say nothing, and for formats that none compresses."""
    name = _name(path)
    if name.suffix not in COMPRESSED:
        return KINDS.get(name.suffix)
    kind = KINDS.get(name.with_suffix("").suffix)
    return kind if kind in ("text", "jsonl") else None


def plain_ending(path: str) -> str:
    """The ending of the name, without that of a compression."""
    name = _name(path)
    return name.with_suffix("").suffix if name.suffix in COMPRESSED else name.suffix


def is_compressed(path: str) -> bool:
    return _name(path).suffix in COMPRESSED


def size_and_version(path: str) -> tuple[int, str]:
    """In bytes, and something that changes with the file; it may also change without: it is a hint to look closer."""
    place = here(path) or path
    if not is_remote(place):
        status = Path(place).stat()
        return status.st_size, f"{status.st_size} {status.st_mtime_ns}"
    file_system, name = file_system_of(path)
    facts = file_system.info(name)
    if facts.get("size") is None:
        raise at(path, "the server does not say how large it is; fetch it, and name the copy")
    return int(facts["size"]), " ".join(str(facts[key]) for key in ("size", *VERSIONS) if key in facts)


@contextmanager
def opened(path: str, read_ahead: int | None = None) -> Iterator[Any]:
    """The bytes of a file, decompressed. `read_ahead` is how many of a remote file are fetched beyond those asked for.

    Without it that is up to the file system, often megabytes, which suits those who read a whole file.
    """
    with _raw(path, read_ahead) as raw:
        if is_compressed(path):
            with COMPRESSED[_name(path).suffix](raw) as file:
                yield file
        else:
            yield raw


@contextmanager
def _raw(path: str, read_ahead: int | None) -> Iterator[Any]:
    place = here(path) or path
    if not is_remote(place):
        with Path(place).open("rb") as file:
            yield file
        return
    file_system, name = file_system_of(path)
    options = {} if read_ahead is None else {"block_size": read_ahead}
    # Buffered, for fsspec's own readline fetches a block for each line.
    with file_system.open(name, "rb", **options) as file, io.BufferedReader(file, 1 << 16) as buffered:
        yield buffered


def file_system_of(path: str) -> tuple[Any, str]:
    """The file system of a remote file, and the file's name in it; raises `ConfigError` if there is no such system."""
    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is missing
        raise at(path, first_line(error)) from None


def patiently(path: str, action: Callable[[], Found]) -> Found:
    """What `action` makes of a file; see `after_failure` for what happens when it fails."""
    failures = 0
    while True:
        try:
            return action()
        except Exception as error:  # noqa: BLE001  # each file system has exceptions of its own
            failures += 1
            after_failure(path, failures, error)


def after_failure(path: str, failures: int, error: Exception) -> None:
    """Waits, so that a remote file can be tried again; raises where there is no point in that.

    `ConfigError` tells of a file that is missing or malformed, `RunError` of one that could not be read.
    """
    if isinstance(error, RunError | ConfigError):
        raise error
    if isinstance(error, FileNotFoundError):
        why = "" if is_remote(path) else why_missing(Path(path))
        raise at(path, f"there is no such file{why}") from None
    if isinstance(error, PermissionError):
        raise at(path, f"may not be read: {error.strerror or first_line(error)}") from None
    if is_remote(path):
        if failures == TRIES:
            raise RunError(f"{path} cannot be read, after {TRIES} tries: {first_line(error)}") from None
        wait = FIRST_WAIT * 2 ** (failures - 1)
        log.warning("%s: %s; next try in %g s", path, first_line(error), wait)
        time.sleep(wait)
    elif isinstance(error, OSError) and error.errno:
        raise RunError(f"{path}: {error.strerror}") from None
    elif isinstance(error, MALFORMED):
        raise at(path, f"is damaged, or not what its name says: {first_line(error)}") from None
    else:
        raise error


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _name(path: str) -> PurePosixPath:
    """For its endings: in lower case, and without what may follow in an address."""
    return PurePosixPath((urlsplit(path).path if is_remote(path) else path).lower())
