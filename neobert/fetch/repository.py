"""Files of one repository: listed, downloaded, verified, and mended where the cache or the way to it was faulty."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from neobert.errors import RunError
from neobert.fetch.checksums import find_faults

log = logging.getLogger(__name__)

TOGETHER = 200
"""Files asked for at once. They are named by patterns, of which Python remembers so many."""
FORGOTTEN = 24 * 3600
"""Seconds after which an unfinished file that nobody writes is one that a killed process has left."""


@dataclass(frozen=True)
class Repository:
    """A repository at a commit, with all of its files."""

    kind: str
    name: str
    revision: str | None
    """As it was asked for; None: the main branch."""
    commit: str
    files: Mapping[str, RepoFile]


@dataclass(frozen=True)
class Snapshot:
    """What was fetched of a repository."""

    repository: Repository
    folder: Path
    files: int
    bytes: int
    new: int
    """How many of the files were downloaded now."""
    mended: int
    """How many had to be downloaded again, because they were damaged."""

    def beside(self, other: Snapshot) -> Snapshot:
        """Both, of the same repository."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("files", "bytes", "new", "mended")}
        return replace(self, **sums)


def look_up(kind: str, name: str, revision: str | None) -> Repository:
    """Asks the hub. `kind` is model or dataset."""
    api = HfApi()
    commit = str(api.repo_info(name, repo_type=kind, revision=revision).sha)
    tree = api.list_repo_tree(name, repo_type=kind, revision=commit, recursive=True)
    return Repository(kind, name, revision, commit, {file.path: file for file in tree if isinstance(file, RepoFile)})


@contextmanager
def alone(repository: Repository) -> Iterator[None]:
    """Keeps other fetches of the same repository waiting.

    The libraries have locks of their own, under which a file is downloaded once. But only one may judge files and
    remove what is damaged, or it would remove what another has just mended.
    """
    path = Path(constants.HF_HUB_CACHE) / ".locks" / _place(repository).name / "fetch.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=1))
        except Timeout:
            log.info("%s: waiting for another fetch of it", repository.name)
            stack.enter_context(WeakFileLock(path))
        yield


def download(repository: Repository, paths: Sequence[str], again: bool) -> Snapshot:
    """Brings files into the cache and verifies them; raises `RunError` where the hub gives others than it says.

    What is there already is read only if it has changed since it was verified, or with `again`.
    """
    place = _place(repository)
    folder = place / "snapshots" / repository.commit
    files = [repository.files[path] for path in paths]
    _forget_unfinished(place)
    before = [file for file in files if (folder / file.path).exists()]
    faults = damaged = find_faults(folder, before, again) if before else {}
    for _ in range(2):
        for path, reason in faults.items():
            log.warning("%s: %s %s: it is downloaded again", repository.name, path, reason)
            _remove(folder / path)
        _download(repository, paths)
        faults = find_faults(folder, files, again=False)
        if not faults:
            size = sum(file.size for file in files)
            return Snapshot(repository, folder, len(files), size, len(files) - len(before), len(damaged))
    for path in faults:
        _remove(folder / path)
    path, reason = next(iter(faults.items()))
    raise RunError(f"{repository.name}: {path} {reason}, twice: {constants.ENDPOINT} gives another file than it says")


def _place(repository: Repository) -> Path:
    """Its directory in the cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.name, repo_type=repository.kind)


def _download(repository: Repository, paths: Sequence[str]) -> None:
    """A file that is sent with another size than it has is missing afterwards."""
    try:
        for start in range(0, len(paths), TOGETHER):
            patterns = [glob.escape(path) for path in paths[start : start + TOGETHER]]
            found = snapshot_download(
                repository.name, repo_type=repository.kind, revision=repository.revision, allow_patterns=patterns
            )
            if Path(found).name != repository.commit:
                raise RunError(f"{repository.name} was changed just now: run the same command again")
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        log.warning("%s: %s", repository.name, str(error).splitlines()[0])


def _remove(path: Path) -> None:
    """A file of a snapshot, which is a link to a blob, which may be a link to another one."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _forget_unfinished(place: Path) -> None:
    """Removes what killed processes have left: nobody goes on with their unfinished files."""
    for path in place.glob("blobs/*.incomplete"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > FORGOTTEN:
                path.unlink()
