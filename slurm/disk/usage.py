"""The bytes that a trial's checkpoints take: at most while it runs, and once it is done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neobert.config import ExportConfig, GlueConfig, PreprocessConfig, PretrainConfig
from neobert.config.deepspeed import DeepSpeedConfig
from neobert.config.keep import DEFAULTS
from slurm.disk.errors import Unknown
from slurm.disk.models import Models
from slurm.disk.weights import Size

ADAMW = 8
"""Bytes for a parameter's two moments, in fp32."""


@dataclass(frozen=True)
class Usage:
    """Bytes of a trial: the most at any moment while it runs, and what stays once it is done."""

    peak: int
    stays: int


@dataclass(frozen=True)
class Bytes:
    """Bytes of a saved model, and of a whole checkpoint: the model with its training state."""

    model: int
    checkpoint: int


def usage_of(trial_id: str, models: Models) -> Usage:
    """Return the usage of a trial that runs without interruption; raises `Unknown`."""
    settings = models.settings_of(trial_id)
    match settings:
        case GlueConfig():
            return _fine_tuning(settings, models.of_trial(trial_id)) if settings.do_train else Usage(0, 0)
        case PretrainConfig():
            return _pretraining(settings, models.of_trial(trial_id))
        case ExportConfig():
            model = models.of_trial(trial_id).total * (4 if settings.dtype == "float32" else 2)
            return Usage(model, model)
        case PreprocessConfig(step="all" | "part"):
            raise Unknown("shards of English text take about half of its bytes")
    return Usage(0, 0)  # too little to count


def _fine_tuning(settings: GlueConfig, size: Size) -> Usage:
    trainer, each = settings.trainer, _bytes(size, settings.deepspeed, settings.trainer.mixed_precision, ADAMW)
    saves: float = math.ceil(trainer.num_train_epochs)
    if trainer.eval_steps is not None:
        saves = math.ceil(trainer.max_steps / trainer.eval_steps) if trainer.max_steps else math.inf
    kept = max(trainer.save_total_limit, 2 if settings.do_eval else 1)  # the best and the newest always stay
    stays = {
        "best": each.model,
        "last": each.checkpoint + (each.model if saves > 1 and settings.do_eval else 0),
        "all": _times(min(saves, kept), each.checkpoint),
    }
    return Usage(_times(min(saves, kept + 1), each.checkpoint), stays[trainer.keep or DEFAULTS["glue"]])


def _pretraining(settings: PretrainConfig, size: Size) -> Usage:
    trainer = settings.trainer
    spared = ADAMW / 2 * size.matrices / size.total if settings.optimizer.name == "muon" else 0  # which has one moment
    each = _bytes(size, settings.deepspeed, trainer.mixed_precision, ADAMW - spared)
    saves = math.ceil(trainer.max_steps / trainer.save_steps) if trainer.max_steps else math.inf
    kept = _times(min(saves, trainer.save_total_limit), each.checkpoint)
    stays = {"best": 0, "last": each.checkpoint, "all": kept}[trainer.keep or DEFAULTS["pretrain"]] + each.model
    while_saving = _times(min(saves, trainer.save_total_limit + 1), each.checkpoint)
    return Usage(max(while_saving, kept + each.model), stays)


def _times(count: float, size: int) -> int:
    return int(count) * size


def _bytes(size: Size, deepspeed: DeepSpeedConfig | None, precision: str, state: float) -> Bytes:
    """Return the sizes of what is saved; `state` is the optimizer's bytes for each parameter.

    DeepSpeed saves the model in the precision of the training, and once more among its own files (not at stage 3). Its
    optimizer state includes fp32 weights if it is shared out or the precision is lower. `auto` counts as fp32.
    """
    if deepspeed is None:
        return Bytes(4 * size.total, round((4 + state) * size.total))
    lower = precision in ("bf16", "fp16")
    model = 2 if lower else 4
    again = 0 if deepspeed.stage == 3 else model
    optimizer = 4 + ADAMW if lower or deepspeed.stage > 0 else state
    return Bytes(model * size.total, round((model + again + optimizer) * size.total))
