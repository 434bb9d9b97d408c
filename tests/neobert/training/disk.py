"""What the launcher reckons that a trial takes of the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neobert.settings import from_command_line
from slurm.cluster import Profile
from slurm.disk.models import Models
from slurm.disk.usage import Usage, usage_of
from slurm.plan import Plan, Stage, Trial
from slurm.schema import Array, Resources


def estimated(settings: list[str], task: str = "glue", config: Path | None = None) -> Usage:
    """Of a trial with these settings."""
    trial = Trial("0" * 12, task, {}, from_command_line(task, config, settings).config.model_dump_json())
    more: dict[str, Any] = {"needs": (), "image": None, "env": {}, "secrets": (), "binds": (), "axes": ()}
    stage = Stage(name=task, task=task, resources=Resources(), array=Array(), trials=(trial,), **more)
    return usage_of(trial.id, Models(Plan("test", "local", Profile(backend="local"), (stage,))))
