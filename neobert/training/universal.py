"""A DeepSpeed checkpoint for another number of processes than wrote it.

ZeRO's shards fit as many processes as made them. DeepSpeed can turn them into a universal checkpoint
(https://www.deepspeed.ai/tutorials/universal-checkpointing), which any number of processes can load. That is done here
when a training starts with another number, into a directory beside the checkpoints which is removed once it is loaded.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from neobert.errors import RunError
from neobert.training.checkpoints import Checkpoint, inventory
from neobert.training.distributed import Ranks
from neobert.training.exchange import broadcast
from neobert.training.files import TrialFiles
from neobert.training.pretraining import PretrainTrainer

log = logging.getLogger(__name__)

LATEST = "latest_universal"
"""Where DeepSpeed looks which directory holds the universal checkpoint."""


def is_needed(start: Checkpoint | None, stage: int, ranks: Ranks) -> bool:
    """Whether this checkpoint's optimizer states are in shards of another number of processes."""
    return start is not None and stage > 0 and start.processes != ranks.world_size


def converted(start: Checkpoint, paths: TrialFiles, ranks: Ranks, args: TrainingArguments) -> Path:
    """A directory from which any number of processes can load this checkpoint; raises `RunError` if it cannot be made.

    All processes call it, and the main one does the work. DeepSpeed is told, in `args`, to load such a checkpoint.
    """
    target = paths.checkpoints / f"universal-{start.step}"
    fault = _convert(start, target) if ranks.is_main else None
    fault = broadcast(fault)
    if fault is not None:
        raise RunError(fault)
    args.hf_deepspeed_config.config["checkpoint"]["load_universal"] = True
    return target


def _convert(start: Checkpoint, target: Path) -> str | None:
    """Why it could not be done, or None."""
    shards = start.path / (start.path / "latest").read_text().strip()
    log.info("%s is of %d processes: it is converted", start.path, start.processes)
    since = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    for name in inventory(start.path):
        if (start.path / name).parent == start.path:  # all but the shards, which lie in a directory
            target.mkdir(exist_ok=True)
            shutil.copy2(start.path / name, target / name)
    tag = f"{shards.name}_universal"
    words = [sys.executable, "-m", "neobert.training.to_universal", "--input_folder", str(shards)]
    words += ["--output_folder", str(target / tag), "--inject_missing_state"]
    alone = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(words, env={**alone, "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return (
            f"{start.path} was written by {start.processes} processes, and DeepSpeed cannot convert it: {last}. Start "
            "as many as before, or remove the checkpoints to begin anew."
        )
    (target / LATEST).write_text(tag)
    log.info("converted in %.0f s", time.monotonic() - since)
    return None


class MendStage3(TrainerCallback):
    """Puts right what DeepSpeed 0.19 does when it loads a universal checkpoint at stage 3.

    All of the optimizer's states get one and the same tensor as their step, so that each of them counts it on for all;
    and all groups of weights get the settings of the first, its weight decay included.
    """

    def __init__(self, trainer: PretrainTrainer):
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        optimizer = self._trainer.plain_optimizer
        for state in optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()
        for group, settings in zip(optimizer.param_groups, self._trainer.optimizer_settings, strict=True):
            group.update(settings)


class RemoveConverted(TrainerCallback):
    """Once the training has begun, everything is loaded."""

    def __init__(self, directory: Path):
        self._directory = directory

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self._directory.exists():
            shutil.rmtree(self._directory, ignore_errors=True)
