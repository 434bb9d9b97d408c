"""Which checkpoint the settings of a model mean."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.checkpoint.find import Found, find
from neobert.config.paths import why_missing
from neobert.config.sections import ModelConfig, greater_is_better
from neobert.training.files import TrialFiles


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
        return best_trial([Path(trial) for trial in directory]), None
    path = directory or config.name_or_path
    if which == "latest":
        return Path(str(path)), "latest"
    if isinstance(which, str):
        return Path(which), None
    return Path(path) if path else None, which


def best_trial(trials: Sequence[Path]) -> Path:
    """The trial with the best score: of a loss the lowest, of other metrics the highest; of equal ones the first.

    Raises `UnusableCheckpoint` if one has no result, or none that could be better than another.
    """
    scores = []
    for trial in trials:
        path = TrialFiles(trial).result
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            scores.append((result["metric"], math.nan if result["score"] is None else float(result["score"])))
        except FileNotFoundError:
            raise UnusableCheckpoint(f"{trial} has no result.json: the best of several trials is chosen when all are "
                                     f"done{why_missing(path)}") from None  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnusableCheckpoint(f"{path} cannot be read: {error!r}") from None
    metrics = sorted({metric for metric, _ in scores})
    if len(metrics) > 1:
        raise UnusableCheckpoint(f"the trials have different scores, of which none is the best: {', '.join(metrics)}")
    if metrics == ["predictions"]:
        raise UnusableCheckpoint(
            "the trials have made predictions alone (do_eval: false), so none of them is the best: name one of them"
        )
    broken = [str(trial) for trial, (_, score) in zip(trials, scores, strict=True) if not math.isfinite(score)]
    if broken:
        raise UnusableCheckpoint(
            f"the score of {', '.join(broken)} is no finite number, neither better nor worse than another: leave it "
            "out of the list"
        )
    sign = 1 if greater_is_better(metrics[0]) else -1
    return trials[max(range(len(trials)), key=lambda number: sign * scores[number][1])]
