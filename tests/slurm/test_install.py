"""The launcher installs alone on a login node, from a wheel, with its recipes and profiles."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_without_extras_plans_and_renders(tmp_path: Path) -> None:
    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    assert "torch" not in run(python, "-m", "pip", "list").lower()
    recipe = tmp_path / "venv/bin/recipe"
    assert "GPU-hours" in run(recipe, "plan", "demo")
    assert run(recipe, "render", "demo", "--stage", "glue", "--cluster", "a100").startswith("#!/bin/bash\n#SBATCH ")
