"""An installation from a wheel, without a checkout, builds images as well."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.containers.plugin import ROOT

PACK = """
import sys
from pathlib import Path
from slurm.image.definitions import definitions, make_spec
from slurm.image.project import build_wheel, find_source
source = find_source()
print(definitions())
print(source.digest, source.commit, make_spec("gpu").digest())
print(build_wheel(source, Path(sys.argv[1]), Path(sys.argv[1], "log")))
"""


@pytest.mark.slow
def test_the_definitions_and_the_wheel_come_from_the_installation(tmp_path: Path) -> None:
    def run(*words: object, **environment: str) -> list[str]:
        command = [str(word) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    target, first, again = (tmp_path / name for name in ("target", "first", "again"))
    first.mkdir(), again.mkdir()
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", first, ROOT)
    (wheel,) = first.glob("*.whl")
    run(*pip, "install", "--quiet", "--no-deps", "--target", target, wheel)

    where, installed, packed = run(sys.executable, "-P", "-c", PACK, again, PYTHONPATH=str(target))
    assert Path(where) == target / "slurm" / "_containers"
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(packed) as other:
        assert set(one.namelist()) == set(other.namelist())
    run(*pip, "install", "--quiet", "--no-deps", "--target", tmp_path / "third", packed)

    _, here, _ = run(sys.executable, "-P", "-c", PACK, first, PYTHONPATH=str(ROOT))
    assert installed.split()[0] == here.split()[0], "the digest of the code does not depend on where it lies"
    assert installed.split()[1] == "unknown"
    assert installed.split()[2] == here.split()[2], "nor does that of the image"
