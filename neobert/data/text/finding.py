"""The files of text that settings name: by themselves, by directories and patterns, or on the hub.

The log tells what of a directory is read and what is not.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.config.paths import why_missing
from neobert.data.text.fetched import recall
from neobert.data.text.files import (
    EXPECTED,
    THREADS,
    file_system_of,
    first_line,
    is_remote,
    kind_of,
    opened,
    patiently,
    plain_ending,
)
from neobert.hub import how_to_fetch

log = logging.getLogger(__name__)

SHOWN = 10
"""Names in a line of the log."""

Entry = tuple[str, str | None]
"""A file in a directory, and why it is not read, or None."""


def find(patterns: Sequence[str], column: str = "text") -> list[str]:
    """The files that these names, directories and patterns (*, **) stand for: in this order, and each of them once.

    Those of one directory or pattern are sorted. Raises `ConfigError` for one that stands for none. `column` is where
    lines of JSON hold text.
    """
    found: dict[str, str] = {}
    total = 0
    for pattern in patterns:
        matches = _find_remote(pattern, column) if is_remote(pattern) else _find_here(pattern, column)
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


# -- on this machine ------------------------------------------------------------------------------------------------


def _find_here(pattern: str, column: str) -> list[str]:
    if Path(pattern).is_file():  # whatever characters are in its name
        return [pattern]
    if Path(pattern).is_dir():
        return _readable(pattern, sorted(_in_directory(pattern)), column)
    found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not found:
        where = "" if Path(pattern).is_absolute() else f" (here: {Path.cwd()})"
        raise ConfigError(f"{pattern}: there is no such file{why_missing(Path(pattern))}{where}")
    return found


def _in_directory(directory: str) -> Iterator[Entry]:
    """All files below it; of hidden directories their names alone."""
    for folder, folders, names in os.walk(directory, followlinks=True):
        yield from ((str(Path(folder) / name), "hidden") for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "dataset_dict.json" in names:
            raise ConfigError(f"{folder}: holds several data sets; name one of them: {', '.join(sorted(folders))}")
        rows = _saved_rows(Path(folder) / "state.json") if "state.json" in names else []
        for name in names:
            of_others = "not the rows of the saved data set" if rows and name not in rows else None
            yield str(Path(folder) / name), "hidden" if name.startswith(".") else of_others or _why_no_text(name)


def _why_no_text(name: str) -> str | None:
    return None if kind_of(name) else "its name does not say that it is text"


def _saved_rows(state: Path) -> list[str]:
    """The names of the files that hold the rows of a data set that `datasets` has saved; none if it is none."""
    try:
        return [str(file["filename"]) for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return []


# -- elsewhere ------------------------------------------------------------------------------------------------------


def _find_remote(pattern: str, column: str) -> list[str]:
    protocol = pattern.partition("://")[0]
    is_directory, names = patiently(pattern, partial(_names_remote, pattern))
    paths = sorted(f"{protocol}://{name.removeprefix(f'{protocol}://')}" for name in names)
    if not paths:
        raise ConfigError(f"{pattern}: there is no such file ({EXPECTED})")
    entries = [(path, _why_no_text(path)) for path in paths]
    return _readable(pattern, entries, column if is_directory else None)


def _names_remote(pattern: str) -> tuple[bool, list[str]]:
    """Return whether the pattern names a directory, and the names of its files."""
    file_system, name = file_system_of(pattern)
    if glob.has_magic(name):
        return False, list(file_system.glob(name))
    if kind_of(pattern):
        return False, [name]
    return True, list(file_system.find(name))


# -- what of a directory is read -----------------------------------------------------------------------------------


def _readable(place: str, entries: Sequence[Entry], column: str | None) -> list[str]:
    """The files that are read, and the log tells of them and of the others; raises `ConfigError` if there are none.

    A .json file of a directory may describe the others, and is left out unless it begins with a document in `column`.
    Without a column that is not asked, as for files that a pattern names.
    """
    asked = [path for path, why in entries if why is None and column and plain_ending(path) == ".json"]
    with ThreadPoolExecutor(THREADS) as threads:
        faults = dict(zip(asked, threads.map(partial(_why_no_documents, str(column)), asked), strict=True))
    left = {path: why or faults.get(path) for path, why in entries if why or faults.get(path)}
    read = [path for path, _ in entries if path not in left]
    unread = _shown([f"{_below(place, path)} ({why})" for path, why in left.items()])
    if not read:
        none = "the directory holds no file of text" if column else "there is no such file"
        raise ConfigError(f"{place}: {none} ({EXPECTED}){f'; not read: {unread}' if left else ''}")
    if column or left:
        some = _shown([_below(place, path) for path in read])
        log.info("%s: reading %d of %d files: %s", place, len(read), len(entries), some)
    if left:
        log.log(logging.WARNING if any(faults.values()) else logging.INFO, "%s: not read: %s", place, unread)
    return read


def _why_no_documents(column: str, path: str) -> str | None:
    """Judge by the first line. None where that is a document, and for unreadable files, which the reader reports."""
    try:
        with opened(path) as file:
            line = next((line for line in file if line.strip()), b"")
    except Exception:  # noqa: BLE001  # each file system has exceptions of its own; whoever reads the text meets them
        return None
    if not line:
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return "not an object of JSON in each line"
    return None if column in document else f"no {column!r} in its first line (text_column names it)"


def _below(place: str, path: str) -> str:
    return path.removeprefix(place).lstrip("/") or path


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
