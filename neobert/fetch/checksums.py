"""Whether files of the cache are those of the hub, by size and checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub.hf_api import RepoFile

from neobert.training.files import write_json

THREADS = 8
RECORD = "verified.json"
"""In the directory of a repository: which of its files were verified. One that is as it was is not read again."""


def find_faults(folder: Path, files: Sequence[RepoFile], again: bool) -> dict[str, str]:
    """The files of a snapshot that are not what the hub says of them, each with the reason.

    `folder` is the snapshot's. With `again` those are read too that were verified before.
    """
    repository = folder.parents[1]
    verified = _read(repository / RECORD)
    known = {} if again else verified

    def check(file: RepoFile) -> str | None:
        path = folder / file.path
        if not path.exists():
            return "is missing"
        if path.stat().st_size != file.size:
            return f"has {path.stat().st_size} bytes, expected {file.size}"
        if known.get(_key(path, repository)) == _state(path, file):
            return None
        return _difference(path, file)

    with ThreadPoolExecutor(THREADS) as threads:
        reasons = dict(zip((file.path for file in files), threads.map(check, files), strict=True))
    sound = [file for file in files if reasons[file.path] is None]
    now = {_key(folder / file.path, repository): _state(folder / file.path, file) for file in sound}
    with suppress(OSError):  # in a cache of somebody else's they are read again the next time
        write_json(repository / RECORD, verified | now)
    return {path: reason for path, reason in reasons.items() if reason is not None}


def _difference(path: Path, file: RepoFile) -> str | None:
    """Large files have a sha256; the others are known by git's own name of their contents."""
    digest = hashlib.sha256() if file.lfs else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    expected, found = _checksum(file), digest.hexdigest()
    return None if found == expected else f"has the checksum {found}, expected {expected}"


def _checksum(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


def _key(path: Path, repository: Path) -> str:
    return os.path.relpath(path.resolve(), repository.resolve())


def _state(path: Path, file: RepoFile) -> list[Any]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, _checksum(file)]


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
