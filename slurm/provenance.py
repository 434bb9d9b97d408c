"""What a run was made from: the code that it runs, and where that and the command came from."""

from __future__ import annotations

import getpass
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
from pathlib import Path
from typing import Any

from slurm.rundir import RunDir

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
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(target)
    return target


def provenance(workdir: Path, code: Path, image: Path | None) -> dict[str, Any]:
    """Who submitted what from where, with which versions."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "directory": str(workdir),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "version": _version(),
        "code": code.name,
        "git": _git(workdir),
        "image": None if image is None or not image.exists() else {"path": str(image), "bytes": image.stat().st_size},
    }


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
