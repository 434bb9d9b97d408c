"""The files that text comes from: found and opened here, or at any place that fsspec reaches (`hf://`, `s3://`, ...).

What goes wrong with a remote file is tried again before it is told; every message names the file.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import logging
import lzma
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import fsspec
import pyarrow

from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.data.examples import at
from neobert.data.text.fetched import here, recall
from neobert.errors import RunError
from neobert.hub import how_to_fetch

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

TRIES = 6
FIRST_WAIT = 1.0
"""Seconds before a failed read of a remote file is tried again; twice as long each time."""

MALFORMED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, pyarrow.ArrowException)
"""What libraries raise for contents that they cannot read."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "Last-Modified")
"""What file systems call that which changes with a file's contents."""


def find(patterns: Sequence[str]) -> list[str]:
    """The files that these names, directories and patterns (*, **) stand for: in this order, and each of them once.

    Those of one directory or pattern are sorted. Raises `ConfigError` for one that stands for none.
    """
    found: dict[str, str] = {}
    total = 0
    for pattern in patterns:
        matches = _find_remote(pattern) if is_remote(pattern) else _find_here(pattern)
        total += len(matches)
        for path in matches:
            found.setdefault(path if is_remote(path) else os.path.realpath(path), path)
    if len(found) < total:
        log.info("%d of %d files are named twice, and read once", total - len(found), total)
    return list(found.values())


def find_on_hub(name: str, config: str | None, split: str, revision: str | None) -> list[str]:
    """The files of a data set on the hub; without a connection, those that were fetched before.

    Raises `ConfigError` when they cannot be had.
    """
    try:
        files = _ask_hub(name, config, revision)
    except Exception as error:  # noqa: BLE001  # the hub's own, requests', httpx's, OSError, ValueError
        fetched = recall(name, revision, config, split)
        if fetched is None:
            message = f"{name!r}: the hub did not give such a data set: {first_line(error)}"
            wanted = HubName("text", name, revision, config, split)
            raise ConfigError(f"{message}\n{how_to_fetch(wanted)}") from None
        log.info("%s: reading the files that were fetched", name)
        return fetched
    if split not in files:
        raise ConfigError(f"{name!r} has no split {split!r}; there are {', '.join(files)}")
    return files[split]


def _ask_hub(name: str, config: str | None, revision: str | None) -> dict[str, list[str]]:
    """The files of each split."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(name, config, revision=revision)
    if not builder.config.data_files:  # without a connection it finds what it has prepared for others
        raise ConnectionError("no answer")
    return {str(split): list(paths) for split, paths in builder.config.data_files.items()}


def is_remote(path: str) -> bool:
    return "://" in path


def kind_of(path: str) -> Kind | None:
    """What the name says of the format; None for names that say nothing, and for formats that none compresses."""
    name = _name(path)
    if name.suffix not in COMPRESSED:
        return KINDS.get(name.suffix)
    kind = KINDS.get(name.with_suffix("").suffix)
    return kind if kind in ("text", "jsonl") else None


def is_compressed(path: str) -> bool:
    return _name(path).suffix in COMPRESSED


def size_and_version(path: str) -> tuple[int, str]:
    """In bytes, and something that changes with the file; it may also change without: it is a hint to look closer."""
    place = here(path) or path
    if not is_remote(place):
        status = Path(place).stat()
        return status.st_size, f"{status.st_size} {status.st_mtime_ns}"
    file_system, name = _file_system(path)
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
    file_system, name = _file_system(path)
    options = {} if read_ahead is None else {"block_size": read_ahead}
    # Buffered, for fsspec's own readline fetches a block for each line.
    with file_system.open(name, "rb", **options) as file, io.BufferedReader(file, 1 << 16) as buffered:
        yield buffered


def _file_system(path: str) -> tuple[Any, str]:
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
        raise at(path, "there is no such file") from None
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


def _find_here(pattern: str) -> list[str]:
    if Path(pattern).is_file():  # whatever characters are in its name
        return [pattern]
    if Path(pattern).is_dir():
        found = sorted(_in_directory(pattern))
        if not found:
            raise ConfigError(f"{pattern}: the directory holds no file of text ({EXPECTED})")
        return found
    found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not found:
        raise ConfigError(f"{pattern}: there is no such file{'' if Path(pattern).is_absolute() else _here()}")
    return found


def _here() -> str:
    return f" (here: {Path.cwd()})"


def _in_directory(directory: str) -> Iterator[str]:
    """Hidden files are none of it; and where `datasets` has saved a data set, only what holds its rows is."""
    for folder, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "dataset_dict.json" in names:
            raise ConfigError(f"{folder}: holds several data sets; name one of them: {', '.join(sorted(folders))}")
        if "state.json" in names:
            names = _saved_rows(Path(folder) / "state.json") or names
        yield from (str(Path(folder) / name) for name in names if not name.startswith(".") and kind_of(name))


def _saved_rows(state: Path) -> list[str]:
    """The names of the files that hold the rows of a saved data set; none if this is no such thing's state."""
    try:
        return [str(file["filename"]) for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return []


def _find_remote(pattern: str) -> list[str]:
    protocol = pattern.partition("://")[0]
    names = patiently(pattern, lambda: _names_remote(pattern))
    if not names:
        raise ConfigError(f"{pattern}: there is no such file ({EXPECTED})")
    return sorted(f"{protocol}://{name.removeprefix(f'{protocol}://')}" for name in names)


def _names_remote(pattern: str) -> list[str]:
    file_system, name = _file_system(pattern)
    if glob.has_magic(name):
        return [each for each in file_system.glob(name) if kind_of(each)]
    if kind_of(pattern):
        return [name]
    return [each for each in file_system.find(name) if kind_of(each)]
