"""What an image is built from: its definition, what the definition is filled in with, and the digest of all that."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neobert.config import ConfigError
from slurm.provenance import sha256_of

Kind = Literal["cpu", "gpu"]

PROJECT = "neobert-slurm"
LOCK = "constraints.txt"
DEFINITION = {"cpu": "containers/cpu.def", "gpu": "Apptainer.def"}
SHARED = ("containers/install.sh", "containers/environment.sh", "containers/selftest.py")
"""What both definitions copy into the image and run there."""


@dataclass(frozen=True)
class Spec:
    """One image to be built, apart from this project's code."""

    kind: Kind
    root: Path
    """Where the definitions lie, and what their own paths are relative to."""
    bootstrap: str
    base: str
    python: str
    extras: tuple[str, ...]

    @property
    def definition(self) -> Path:
        return self.root / DEFINITION[self.kind]

    @property
    def lock(self) -> Path:
        return self.root / LOCK

    @property
    def torch(self) -> str:
        return locked_version(self.lock, "torch")

    def digest(self) -> str:
        """Changes with everything that decides what is in the image, but for this project's code."""
        parts: list[object] = [self.kind, self.bootstrap, self.base, self.python, self.extras]
        if Path(self.base).is_file():
            parts.append(sha256_of(Path(self.base)))
        parts += requirements()
        parts += [sha256_text(self.root / name) for name in (DEFINITION[self.kind], *SHARED, LOCK)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def make_spec(kind: Kind, base: str | None = None, python: str | None = None) -> Spec:
    """The image to build; raises `ConfigError` for options that do not go together."""
    root = definitions()
    defaults = arguments(root / DEFINITION[kind])
    bootstrap = defaults.get("BOOTSTRAP", "")
    if kind == "cpu" and (base or python):
        option, instead = ("--base", "--mirror names the Debian mirror") if base else ("--python", "it is Debian's own")
        raise ConfigError(f"{option} is for the GPU image; the CPU image is built from Debian packages ({instead})")
    if base is not None:
        bootstrap, base = parse_base(base)
    if python is not None and not re.fullmatch(r"3\.\d+", python):
        raise ConfigError(f"--python {python}: expected the base image's version of Python, such as 3.12")
    extras = tuple(defaults["EXTRAS"].split(","))
    return Spec(kind, root, bootstrap, base or defaults["BASE"], python or defaults["PYTHON"], extras)


def parse_base(text: str) -> tuple[str, str]:
    """A base image as the agent that fetches it and what that needs: `docker://a/b:c`, or a local image's path."""
    scheme, separator, rest = text.partition("://")
    if separator:
        if not scheme or not rest:
            raise ConfigError(f"--base {text}: expected docker://NAME:TAG, another URI that Apptainer knows, or a path")
        if scheme.endswith("-archive") and not Path(rest).is_file():
            raise ConfigError(f"--base {text}: there is no file {rest}")
        return scheme, str(Path(rest).resolve()) if scheme.endswith("-archive") else rest
    if Path(text).exists():
        return "localimage", str(Path(text).resolve())
    if text.endswith((".sif", ".img")) or text.startswith(("/", ".", "~")):
        raise ConfigError(f"--base {text}: there is no such file")
    return "docker", text


def definitions() -> Path:
    """The directory of the definitions: inside the wheel, or that of the checkout."""
    here = Path(__file__).resolve().parents[1]
    shipped = here / "_containers"
    root = shipped if shipped.is_dir() else here.parent
    missing = [name for name in (*DEFINITION.values(), *SHARED, LOCK) if not (root / name).is_file()]
    if missing:
        raise ConfigError(f"{root / missing[0]} is missing: this installation is incomplete")
    return root


def arguments(definition: Path) -> dict[str, str]:
    """The defaults under `%arguments` of a definition file."""
    text = definition.read_text(encoding="utf-8")
    section = re.search(r"^%arguments\n(.*?)(?=^%)", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for line in section[1].splitlines()] if section else []
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {key: value for key, equals, value in pairs if equals}


def locked_version(lock: Path, package: str) -> str:
    match = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ConfigError(f"{lock} has no line `{package}==...`: the image needs its version")
    return match[1]


def about() -> importlib.metadata.PackageMetadata:
    """This project's version and needs, as its installation tells them."""
    try:
        return importlib.metadata.metadata(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"{PROJECT} is not installed here, so what it needs is unknown: `pip install -e .`") from None


def requirements() -> Sequence[str]:
    """What this project asks for, in its extras too."""
    return sorted(about().get_all("Requires-Dist", []))


def sha256_text(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_tree(root: Path, files: Iterable[Path]) -> str:
    """The digest of files and of their paths below `root`."""
    digest = hashlib.sha256()
    for path in sorted(files):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(data)} ".encode() + data)
    return digest.hexdigest()
