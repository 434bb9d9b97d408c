"""The locked dependencies as wheels, resolved here with this machine's own pip configuration.

The build itself sees neither the network nor the package index: inside it, pip finds these wheels and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

from slurm import user
from slurm.image.definitions import Spec, locked_version, sha256_text
from slurm.image.process import BuildError, run_logged

GLIBC = 35
"""Wheels for glibc up to 2.35 are taken: no base image of the supported ones has an older one."""

SOURCE_ONLY = ("deepspeed",)
"""Published without wheels. They are pure Python unless told otherwise, so one built here fits any Python."""

DONE = ".complete"


def cache_directory() -> Path:
    return user.cache_directory() / "wheelhouse"


def resolve(spec: Spec, project: Path, log: Path) -> Path:
    """The directory of all wheels that `spec` needs beside the project's own (`project`); resolved once, then reused.

    For the CPU image torch is among them: the build for CPUs where the package index offers one. For the GPU image
    torch and what belongs to it come with the base image, and are left out.
    """
    home = cache_directory()
    folder = home / f"{spec.kind}-python{spec.python}-{_digest(spec, project)[:16]}"
    if (folder / DONE).exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with _scratch(home) as scratch:
        wheels = scratch / "wheels"
        wheels.mkdir()
        _build_source_only(spec, wheels, log)
        _download(spec, project, scratch, wheels, log)
        (wheels / DONE).touch()
        try:
            wheels.rename(folder)
        except OSError:
            if not (folder / DONE).exists():  # else another build resolved the same meanwhile
                raise
    return folder


def _digest(spec: Spec, project: Path) -> str:
    with zipfile.ZipFile(project) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        requires = Parser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist", [])
    parts = [spec.extras, spec.python, platform.machine(), sha256_text(spec.lock), requires]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=".resolving-", dir=home))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _build_source_only(spec: Spec, wheels: Path, log: Path) -> None:
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(wheels)]
    locked = [f"{name}=={locked_version(spec.lock, name)}" for name in SOURCE_ONLY]
    run_logged([*words, *locked], log, "pip cannot build wheels", env={"DS_BUILD_OPS": "0"})
    compiled = [path.name for path in wheels.glob("*.whl") if not path.name.endswith("-none-any.whl")]
    if compiled:
        raise BuildError(f"{', '.join(compiled)} was compiled for this machine's Python, which an image may not have")


def _download(spec: Spec, project: Path, scratch: Path, wheels: Path, log: Path) -> None:
    torch = f"torch=={spec.torch}"
    if spec.kind == "gpu":
        # An empty wheel in its place gives the resolver torch's version without its dependencies: some 20 packages
        # of CUDA libraries, gigabytes that the base image has already, in the versions that its torch was built for.
        torch = f"torch @ {_empty_wheel(scratch, 'torch', spec.torch).as_uri()}"
    words = [
        sys.executable, "-m", "pip", "download", "--dest", str(wheels), "--find-links", str(wheels),
        "--only-binary=:all:", "--constraint", str(spec.lock), *_target(spec.python),
        "pip", torch, f"neobert-slurm[{','.join(spec.extras)}] @ {project.resolve().as_uri()}",
    ]  # fmt: skip
    # torch is on the same command line: resolved by itself, the others would draw in its newest version.
    run_logged(
        words, log, "pip cannot resolve the locked packages with this machine's configuration (`pip config list`)"
    )
    (wheels / project.name).unlink()  # it is bound by itself, so that wheels can be kept while the code changes
    if spec.kind == "gpu":
        next(wheels.glob("torch-*.whl")).unlink()


def _target(python: str) -> list[str]:
    """pip's words for the image's Python, which need not be the one that runs here."""
    machine = platform.machine()
    names = [f"manylinux_2_{minor}" for minor in range(GLIBC, 4, -1)]
    names += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
    tag = python.replace(".", "")
    words = ["--implementation", "cp", "--python-version", python]
    words += [word for abi in (f"cp{tag}", "abi3", "none") for word in ("--abi", abi)]
    return words + [word for name in names for word in ("--platform", f"{name}_{machine}")]


def _empty_wheel(folder: Path, name: str, version: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
