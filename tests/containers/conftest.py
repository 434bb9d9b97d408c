"""A checkout whose CPU image is tiny, so that its builds take seconds: real builds, by the real program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurm.image.definitions import arguments

ROOT = Path(__file__).resolve().parents[2]

TINY = """\
Bootstrap: scratch

%arguments
    MIRROR=none
    KIND=cpu
    BASE=nothing
    PYTHON=3.11
    EXTRAS=@EXTRAS@
    VERSION=unknown
    COMMIT=unknown
    DIRTY=unknown
    SOURCE=unknown
    DEFINITION=unknown

%setup
    mkdir -p ${APPTAINER_ROOTFS}/bin ${APPTAINER_ROOTFS}/lib64 ${APPTAINER_ROOTFS}/lib/x86_64-linux-gnu
    mkdir -p ${APPTAINER_ROOTFS}/mnt ${APPTAINER_ROOTFS}/media
    cp /bin/dash ${APPTAINER_ROOTFS}/bin/sh
    cp /bin/sleep ${APPTAINER_ROOTFS}/bin/sleep
    cp -L /lib64/ld-linux-x86-64.so.2 ${APPTAINER_ROOTFS}/lib64/
    cp -L /lib/x86_64-linux-gnu/libc.so.6 ${APPTAINER_ROOTFS}/lib/x86_64-linux-gnu/

%post
    : {{ MIRROR }} {{ PYTHON }} {{ EXTRAS }}
    test -e /mnt/.complete && test -e /media/neobert_slurm-*.whl
    @POST@

%labels
    neobert.kind {{ KIND }}
    neobert.dirty {{ DIRTY }}
    neobert.source {{ SOURCE }}
    neobert.definition {{ DEFINITION }}
    neobert.extras {{ EXTRAS }}
    org.opencontainers.image.version {{ VERSION }}
    org.opencontainers.image.revision {{ COMMIT }}
    org.opencontainers.image.base.name {{ BASE }}
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of this project, with the same lock: its wheels are resolved once for all of these tests."""

    root: Path

    @property
    def image(self) -> Path:
        return self.root / "out" / "image.sif"

    def post(self, command: str) -> None:
        """Makes `command` what the tiny image's build runs."""
        extras = arguments(ROOT / "containers" / "cpu.def")["EXTRAS"]
        (self.root / "containers" / "cpu.def").write_text(TINY.replace("@POST@", command).replace("@EXTRAS@", extras))

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "slurm.cli", "image", *map(str, words)],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": str(self.root)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def build(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("build", "cpu", "--output", self.image, *words, **environment)

    def files(self) -> set[str]:
        """What lies beside the image, without the lock."""
        return {path.name for path in self.image.parent.iterdir()} - {f".{self.image.name}.lock"}


@pytest.fixture
def checkout(apptainer: str, tmp_path: Path) -> Checkout:
    for name in ("slurm", "neobert", "recipes", "containers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Apptainer.def", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    found = Checkout(tmp_path)
    found.post("true")
    return found
