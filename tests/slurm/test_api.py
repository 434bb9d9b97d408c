"""Recipes from Python: what is misspelt is told, and nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm import Recipe


def test_a_backend_that_is_not_known_is_told_with_the_choices(recipe: Path, work: Path) -> None:
    with pytest.raises(ConfigError, match="there is no backend 'slrum': expected sbatch, submitit or local"):
        Recipe.load(recipe).submit(backend="slrum")
    assert not (work / "runs").exists()


def test_a_missing_submitit_is_told_with_what_installs_it(
    recipe: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = write("site.yaml", "backend: sbatch")
    monkeypatch.setitem(sys.modules, "submitit", None)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"submitit needs its package: run `pip install .* -e '\.\[submitit\]'` in the"
    ):
        Recipe.load(recipe, cluster=str(profile)).submit(backend="submitit")


def test_code_is_the_snapshot_or_the_images(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="code: expected 'snapshot' or 'image', found 'Image'"):
        Recipe.load(recipe, code="Image")
