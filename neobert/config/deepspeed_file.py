"""A DeepSpeed file of one's own: reading it, and comparing it with what the recipe says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from neobert.config.sections import OptimizerConfig, SchedulerConfig

Fact = tuple[Any, str]
"""The value that a DeepSpeed key must have, and what in the recipe says so."""

FILLED = {
    "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping",
    "bf16.enabled", "fp16.enabled", "zero_optimization.stage3_gather_16bit_weights_on_model_save",
}  # fmt: skip
"""The facts that belong into a complete configuration; the others are there to be compared with."""

_SCHEDULES = {"constant": "WarmupLR", "linear": "WarmupDecayLR", "cosine": "WarmupCosineLR"}


class Trainer(Protocol):
    """What every trainer section says of batches and precision."""

    @property
    def per_device_train_batch_size(self) -> int: ...
    @property
    def gradient_accumulation_steps(self) -> int: ...
    @property
    def gradient_clipping(self) -> float | None: ...
    @property
    def mixed_precision(self) -> str: ...


def facts_of_batches(trainer: Trainer, world_size: int | None) -> dict[str, Fact]:
    """What DeepSpeed's keys must say of batches and precision; all of it where the number of processes is known."""
    size, pieces = trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps
    clipping, precision = trainer.gradient_clipping, trainer.mixed_precision
    precise = f"trainer.mixed_precision is {precision}"
    found: dict[str, Fact] = {
        "train_micro_batch_size_per_gpu": (size, f"trainer.per_device_train_batch_size is {size}"),
        "gradient_accumulation_steps": (pieces, f"trainer.gradient_accumulation_steps is {pieces}"),
        "gradient_clipping": (clipping or 0.0, f"trainer.gradient_clipping is {json.dumps(clipping)}"),
        "torch_autocast.enabled": (False, f"{precise}, which is DeepSpeed's own bf16 or fp16"),
        "elasticity.enabled": (False, "the recipe fixes the batch size"),
        "checkpoint.writer.decoupled": (False, "a checkpoint is complete when it is saved"),
        "zero_optimization.stage3_gather_16bit_weights_on_model_save": (True, "checkpoints hold the whole model"),
    }
    if precision != "auto":  # which is known when a device is
        found["bf16.enabled"] = found["bfloat16.enabled"] = (precision == "bf16", precise)  # the latter is older
        found["fp16.enabled"] = (precision == "fp16", precise)
    if world_size is not None:
        count = f"{size} x {pieces} x {world_size} examples (per_device_train_batch_size x accumulation x processes)"
        found["train_batch_size"] = (size * pieces * world_size, f"a step takes {count}")
    return found


def facts_of_updates(
    optimizer: OptimizerConfig, scheduler: SchedulerConfig, total_steps: int | None
) -> dict[str, Fact]:
    """What DeepSpeed's keys must say of AdamW and its schedule; all of it where the number of steps is known."""
    found: dict[str, Fact] = {
        "optimizer.params.lr": (optimizer.lr, f"optimizer.lr is {optimizer.lr}"),
        "optimizer.params.betas": (list(optimizer.betas), f"optimizer.betas is {list(optimizer.betas)}"),
        "optimizer.params.eps": (optimizer.eps, f"optimizer.eps is {optimizer.eps}"),
        "optimizer.params.weight_decay": (
            optimizer.weight_decay,
            f"optimizer.weight_decay is {optimizer.weight_decay}",
        ),
        "optimizer.params.adam_w_mode": (True, "the recipe's optimizer is AdamW"),
        "optimizer.params.bias_correction": (True, "the recipe's optimizer is AdamW"),
        "scheduler.type": (_SCHEDULES[scheduler.name], f"scheduler.name is {scheduler.name}"),
        "scheduler.params.warmup_min_lr": (0.0, "the recipe's schedule starts at 0"),
        "scheduler.params.warmup_min_ratio": (0.0, "the recipe's schedule starts at 0"),
        "scheduler.params.cos_min_ratio": (0.0, "the recipe's schedule ends at 0"),
        "scheduler.params.warmup_max_lr": (optimizer.lr, f"optimizer.lr is {optimizer.lr}"),
        "scheduler.params.warmup_type": ("linear", "the recipe warms up linearly"),
    }
    warmup = scheduler.warmup_steps
    if warmup >= 1 or warmup == 0:
        found["scheduler.params.warmup_num_steps"] = (int(warmup), f"scheduler.warmup_steps is {warmup:g}")
    elif total_steps is not None:
        steps = math.ceil(warmup * total_steps)
        share = f"scheduler.warmup_steps is {warmup:g} of {total_steps} steps"
        found["scheduler.params.warmup_num_steps"] = (steps, share)
    if total_steps is not None:
        found["scheduler.params.total_num_steps"] = (total_steps, f"the training has {total_steps} steps")
    return found


def contradictions(raw: dict[str, Any], name: str, known: dict[str, Fact]) -> list[str]:
    """Where a raw configuration says other things than the recipe; `name` stands for it in the messages."""
    found = _malformed(raw) or [*_without_counterpart(raw, known), *_different(raw, known)]
    return [f"{name}: {message}" for message in found]


def _malformed(raw: dict[str, Any]) -> list[str]:
    blocks = {key: lookup(raw, key) for key in _BLOCKS}
    return [f"{key} is {_show(block)}; expected a mapping" for key, block in blocks.items()
            if block is not ABSENT and not isinstance(block, dict)]  # fmt: skip


_BLOCKS = ("zero_optimization", "bf16", "bfloat16", "fp16", "torch_autocast", "elasticity", "checkpoint", "optimizer",
           "optimizer.params", "scheduler", "scheduler.params")  # fmt: skip


def _without_counterpart(raw: dict[str, Any], known: dict[str, Fact]) -> list[str]:
    """Keys of the optimizer and scheduler blocks that would be lost, because the recipe's own are used instead."""
    found = []
    for block in ("optimizer", "scheduler"):
        keys = [f"{block}.{key}" for key in raw.get(block, {}) if key not in ("type", "params")]
        keys += [f"{block}.params.{key}" for key in raw.get(block, {}).get("params", {})]
        for key in keys:
            if key not in known and key not in _LATER:
                found.append(f"{key} has no counterpart in the recipe, whose {block} is used: remove it")
    return found


_LATER = ("scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps")
"""Facts that may show only when the training starts."""


def _different(raw: dict[str, Any], known: dict[str, Fact]) -> list[str]:
    found = []
    kind = lookup(raw, "optimizer.type")
    if kind is not ABSENT and str(kind).lower() not in ("adam", "adamw"):
        found.append(f"optimizer.type is {_show(kind)}, but the recipe's optimizer is AdamW")
    for key, (value, said) in known.items():
        there = lookup(raw, key)
        if there is not ABSENT and there != "auto" and there != value:
            found.append(f'{key} is {_show(there)}, but {said}; expected {_show(value)} or "auto"')
    return found


def read(path: Path) -> dict[str, Any]:
    """The contents of a DeepSpeed file; raises `ValueError` with a message, or `FileNotFoundError`."""
    try:
        contents = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition, parse_constant=_no_number
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: is not valid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{path}: expected a mapping of DeepSpeed's settings, found {_show(contents)}")
    return contents


def _without_repetition(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key!r} stands in it twice")
        mapping[key] = value
    return mapping


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


ABSENT: Any = object()


def lookup(mapping: Any, key: str) -> Any:
    """The value at a dotted key, or `ABSENT`."""
    for part in key.split("."):
        if not isinstance(mapping, dict) or part not in mapping:
            return ABSENT
        mapping = mapping[part]
    return mapping


def put(mapping: dict[str, Any], key: str, value: Any) -> None:
    *way, last = key.split(".")
    for part in way:
        mapping = mapping.setdefault(part, {})
    mapping[last] = value


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
