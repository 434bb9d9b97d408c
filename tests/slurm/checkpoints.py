"""Checkpoints as trainings leave them, for tests that have no time to train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MODEL = ("model.safetensors", "config.json", "tokenizer.json")
STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def write_checkpoint(trial: Path, step: int) -> Path:
    path = trial / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in (*MODEL, *STATE):
        (path / name).write_text(f"{name} of step {step}" * 100)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": 20}))
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    (path / "complete.json").write_text(json.dumps({"schema": 1, "files": sizes}))
    return path


def write_trial(trial: Path, *, trainer: Mapping[str, Any] | None = None, done: bool = True) -> None:
    """A fine-tuning of 60 steps, the best of which are the first 20, or what there is of it after 40."""
    for step in (20, 40, 60) if done else (20, 40):
        write_checkpoint(trial, step)
    (trial / "checkpoints" / "data.json").write_text("{}")
    (trial / "config.yaml").write_text(yaml.safe_dump({"task": "glue", "config": {"trainer": trainer or {}}}))
    if done:
        result = {"task": "glue", "score": 0.5, "metric": "accuracy", "metrics": {}, "step": 20, "steps": 60}
        (trial / "result.json").write_text(json.dumps(result))


def files(directory: Path) -> dict[str, int]:
    """Every file, with its size."""
    return {str(path.relative_to(directory)): path.stat().st_size for path in directory.rglob("*") if path.is_file()}
