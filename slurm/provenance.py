"""What a run was made from: the code that it runs, and where that and the command came from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import platform
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, private
from slurm.rundir import RunDir, read_json, write_atomically
from slurm.user import cache_directory, user_name

CODE_OF_IMAGE = "that of the image"
MAX_DIFF = 1_000_000  # characters of uncommitted changes that are kept


def snapshot_code(run: RunDir) -> Path:
    """Puts the package that trials run into the run's directory, so that later edits do not change queued jobs.

    It is one zip file, which Python imports from directly: a thousand trials then open one file and not fifty each,
    and a submission writes one. Returns its path.
    """
    spec = importlib.util.find_spec("neobert")
    assert spec is not None and spec.origin is not None  # this very package imported it
    root = Path(spec.origin).parent
    files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    buffer, digest = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name, data = path.relative_to(root.parent).as_posix(), path.read_bytes()
            digest.update(f"{name} {len(data)} ".encode() + data)
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # a fixed date: same code, same bytes
    target = run.code / f"{digest.hexdigest()[:12]}.zip"
    if not target.exists():
        run.code.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        with private.create(temporary) as file:
            file.write(buffer.getvalue())
        temporary.replace(target)
    return target


def submitted_code(run: RunDir) -> Path:
    """The code that the run was last submitted with; raises `ConfigError` when it is no longer there."""
    path = run.code / (read_json(run.provenance) or {})["code"]
    if not path.is_file():
        raise ConfigError(f"{path}, the code that the run was submitted with, is gone: `recipe submit` takes today's")
    return path


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
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with suppress(ConfigError, OSError):  # nor can it be written to: the next time takes as long
        (cache_directory() / "sha256").mkdir(parents=True, exist_ok=True)
        write_atomically(cache_directory() / "sha256" / name, digest)
    return digest


def _version() -> str:
    try:
        return importlib.metadata.version("neobert-slurm")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"


def _git(directory: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the directory's repository; None outside of one."""

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], cwd=directory, capture_output=True, text=True, errors="replace", timeout=30
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return answer.stdout if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    diff = git("diff", "HEAD") or ""
    return {"commit": commit.strip(), "diff": diff[:MAX_DIFF], "diff_complete": len(diff) <= MAX_DIFF}
