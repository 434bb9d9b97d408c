"""Which checkpoint the settings of a model mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.checkpoint.find import Found, find
from neobert.config.sections import ModelConfig
from neobert.training.best_trial import NoBestTrial, best_trial


def select(config: ModelConfig) -> Found | None:
    """The checkpoint on this machine that the settings name; None for a name on the hub and for a new model.

    Raises `UnusableCheckpoint` when there is none.
    """
    path, step = _named(config)
    if path is None or (config.name_or_path is not None and not path.exists()):
        return None  # a directory that is not there may be a name on the hub
    return find(path, step, Path(config.pretrained_config_path) if config.pretrained_config_path else None)


def key_of(config: ModelConfig) -> str:
    """The setting that names the model."""
    names = ("name_or_path", "pretrained_checkpoint_dir", "pretrained_checkpoint")
    return next(name for name in names if getattr(config, name) is not None)


def _named(config: ModelConfig) -> tuple[Path | None, int | Literal["latest"] | None]:
    """The directory, and which checkpoint of it."""
    directory, which = config.pretrained_checkpoint_dir, config.pretrained_checkpoint
    if isinstance(directory, list):
        try:
            return best_trial([Path(trial) for trial in directory]), None
        except NoBestTrial as error:
            raise UnusableCheckpoint(str(error)) from None
    path = directory or config.name_or_path
    if which == "latest":
        return Path(str(path)), "latest"
    if isinstance(which, str):
        return Path(which), None
    return Path(path) if path else None, which
