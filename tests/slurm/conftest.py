"""Fixtures of the launcher's tests: a directory to work in, recipes as text, and a stand-in for the trial's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("stand_in.py")

RECIPE = """
name: sweep
task: glue
resources: {time: 00:10:00, cpus: 1, mem: 100M}
config:
  model: {allow_random_weights: true}
  data: {generated: 100}
grid:
  task_name: [cola, rte]
  seed: [1, 2]
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, with no profiles of the user's own and with local slots of its own."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("RECIPE_CLUSTER", "RECIPE_RUNS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return directory


@pytest.fixture
def write(work: Path) -> Callable[[str, str], Path]:
    """Writes a file into the current directory."""

    def write(name: str, text: str) -> Path:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def recipe(write: Callable[[str, str], Path]) -> Path:
    """A small sweep: two tasks with two seeds."""
    return write("sweep.yaml", RECIPE)


@pytest.fixture
def stand_in(work: Path) -> Path:
    """A profile whose Python is a stand-in for the trial: it takes a moment and then writes a result."""
    python = work / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} {STAND_IN} "$@"\n')
    python.chmod(0o755)
    profile = work / "here.yaml"
    profile.write_text(json.dumps({"backend": "local", "python": str(python), "signal_seconds": 5}))
    return profile


@pytest.fixture
def run_recipe(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command `recipe` as a user does."""

    def run(
        *arguments: object, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "slurm.cli", *map(str, arguments)]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment, timeout=timeout)

    return run
