"""Images for pytest: `pytest_plugins = ["tests.containers.plugin"]` in the topmost conftest.py.

- `apptainer`: the program's name, for tests that need it and no image of ours.
- `cpu_image`: the CPU image, built by `recipe image build cpu` and kept in the checkout (`.cache/images`), so that only
  a change of its definition or of the lock builds it again. The code in it may be older than that which lies here.

Where no image can be built the tests are skipped, with the reason and the remedy; where the environment has CI, they
fail. All workers of pytest-xdist share one build: the others wait for it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers import requirements
from tests.containers.requirements import CPU_IMAGE
from tests.skips import skip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def apptainer() -> str:
    if reason := requirements.missing():
        skip(reason)
    return "apptainer"


@pytest.fixture(scope="session")
def cpu_image() -> Path:
    if reason := requirements.missing_for_cpu_image():
        skip(reason)
    words = [sys.executable, "-m", "slurm.cli", "image", "build", "cpu", "--any-code", "--output", str(CPU_IMAGE)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, f"the CPU image cannot be built:\n{built.stdout}\n{built.stderr}"
    return CPU_IMAGE
