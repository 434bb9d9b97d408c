"""This project's own code as it goes into an image: where it comes from, its digest, and its wheel."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from neobert.config import ConfigError
from slurm import git
from slurm.image.definitions import PROJECT, about, sha256_tree
from slurm.image.process import run_logged

PACKAGES = ("neobert", "slurm")
SHIPPED = ("_recipes", "_containers")
"""What the wheel holds below `slurm/` and a checkout beside it."""


@dataclass(frozen=True)
class Source:
    """The code, and what is known of it. `commit` and `dirty` are `unknown` outside of a git checkout."""

    root: Path
    checkout: bool
    version: str
    commit: str
    dirty: str
    digest: str


def find_source() -> Source:
    """The code that this very program is part of."""
    root = Path(__file__).resolve().parents[2]
    checkout = (root / "pyproject.toml").is_file()
    files = [path for package in PACKAGES for path in (root / package).rglob("*") if _is_source(root, path)]
    commit, dirty = _git(root) if checkout else ("unknown", "unknown")
    return Source(root, checkout, about()["Version"], commit, dirty, sha256_tree(root, files))


def _is_source(root: Path, path: Path) -> bool:
    parts = path.relative_to(root).parts
    return path.is_file() and "__pycache__" not in parts and parts[1] not in SHIPPED


def _git(root: Path) -> tuple[str, str]:
    """The commit of a checkout, and whether files that go into the wheel differ from it (`yes` or `no`)."""

    commit = git.commit(root)
    changes = git.status(root, *PACKAGES, "recipes", "containers", "Apptainer.def", "pyproject.toml")
    if commit is None or changes is None:
        return "unknown", "unknown"
    return commit, "yes" if changes else "no"


def build_wheel(source: Source, folder: Path, log: Path) -> Path:
    """Writes the project's wheel into `folder`; raises `BuildError` when its build backend cannot be had."""
    if not source.checkout:
        return _pack_installed(folder)
    words = ["wheel", "--no-deps", "--wheel-dir", str(folder), str(source.root)]
    run_logged([sys.executable, "-m", "pip", *words], log, "pip cannot build this project's wheel")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _pack_installed(folder: Path) -> Path:
    """The wheel again that this installation came from: its files, with a list of them that pip asks for."""
    distribution = importlib.metadata.distribution(PROJECT)
    skipped = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    files = [
        file
        for file in distribution.files or ()
        if file.parts[0] != ".." and "__pycache__" not in file.parts and file.name not in skipped
    ]
    info = next((file.parts[0] for file in files if file.parts[0].endswith(".dist-info")), None)
    if info is None:
        raise ConfigError(f"the installation of {PROJECT} has no list of its files: reinstall it with pip")
    record = ""
    wheel = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            data = file.read_binary()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{file.as_posix()},sha256={digest},{len(data)}\n"
            archive.writestr(file.as_posix(), data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel
