"""What a run was made from: the code that it runs, and where that and the command came from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import platform
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm import git
from slurm.rundir import RunDir, read_json, write_atomically
from slurm.secrets import is_secret_file, without_secrets
from slurm.user import cache_directory, user_name

CODE_OF_IMAGE = "that of the image"
MAX_DIFF = 1_000_000  # characters of uncommitted changes that are kept


def snapshot_code(run: RunDir) -> Path:
    """Puts the package that trials run into the run's directory, so that later edits do not change queued jobs.

    It is one zip file, which Python imports from directly: a thousand trials then open one file and not fifty each,
    and a submission writes one. Returns its path.
    """
    root = _package()
    files = sorted(path for path in _files(root) if not is_secret_file(path.name))
    _check_links(root, files)
    contents = {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in files}
    target = run.code / f"{_digest(contents)}.zip"
    if _digest_of_zip(target) != target.stem:  # it is not there, or is not what it was
        run.code.mkdir(parents=True, exist_ok=True)
        write_atomically(target, _zip_of(contents))
    return target


def submitted_code(run: RunDir) -> Path:
    """The code that the run was last submitted with; raises `ConfigError` when it is gone, or was changed."""
    path = run.code / (read_json(run.provenance) or {})["code"]
    what = "is gone" if not path.is_file() else "has changed" if _digest_of_zip(path) != path.stem else ""
    if what:
        raise ConfigError(f"{path}, the code that the run was submitted with, {what}: `recipe submit` takes today's")
    return path


def _package() -> Path:
    spec = importlib.util.find_spec("neobert")
    assert spec is not None and spec.origin is not None  # this very package imported it
    return Path(spec.origin).parent


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _check_links(root: Path, files: Sequence[Path]) -> None:
    """Raises `ConfigError` for a link that leads out of the package: what it leads to would be copied into the run."""
    for path in files:
        if not path.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{path} is a link out of the package, to {path.resolve()}: put a copy in its place")


def _digest(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in contents.items():
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()[:12]


def _zip_of(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # a fixed date: same code, same bytes
    return buffer.getvalue()


def _digest_of_zip(path: Path) -> str | None:
    """The digest of what a zip holds, None where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _digest({entry.filename: archive.read(entry) for entry in archive.infolist()})
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError):
        return None


def provenance(workdir: Path, code: Path | None, images: Sequence[Path]) -> dict[str, Any]:
    """Who submitted what from where, with which versions."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "directory": str(workdir),
        "user": user_name(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "version": _version(),
        "code": CODE_OF_IMAGE if code is None else code.name,
        "code_left_out": sorted(str(path) for path in _files(_package()) if is_secret_file(path.name)),
        "git": _git(workdir),
        "images": [{"path": str(image), "sha256": sha256_of(image)} for image in images],
    }


def sha256_of(path: Path) -> str | None:
    """The digest of an image, remembered for as long as it does not change; None for a directory (a sandbox)."""
    if path.is_dir():
        return None
    stat = path.stat()
    about = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    name = hashlib.sha256(about.encode()).hexdigest()[:32]
    with suppress(ConfigError, OSError):  # no home, or it cannot be read, or nothing is remembered
        return (cache_directory() / "sha256" / name).read_text()
    digest = hash_file(path)
    with suppress(ConfigError, OSError):  # nor can it be written to: the next time takes as long
        (cache_directory() / "sha256").mkdir(parents=True, exist_ok=True)
        write_atomically(cache_directory() / "sha256" / name, digest)
    return digest


def hash_file(path: Path) -> str:
    """The SHA-256 of a file as it is now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("neobert-slurm")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"


def left_out(record: Mapping[str, Any]) -> str | None:
    """Say what is not recorded, because it may be a secret."""
    changes = (record["git"] or {}).get("left_out", [])
    parts = {"the uncommitted changes in provenance.json": changes, "the code that trials run": record["code_left_out"]}
    texts = [f"left out of {where}: {', '.join(names)}" for where, names in parts.items() if names]
    return f"{'; '.join(texts)} (what may be a secret)" if texts else None


def _git(directory: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the directory's repository, without secrets; None outside of one."""
    commit = git.commit(directory)
    if commit is None:
        return None
    diff, left_out = without_secrets(git.diff(directory))
    complete = len(diff) <= MAX_DIFF and not left_out
    return {"commit": commit, "diff": diff[:MAX_DIFF], "diff_complete": complete, "left_out": left_out}
