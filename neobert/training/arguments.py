"""Our settings as Hugging Face's TrainingArguments."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from neobert.config import ConfigError, PretrainConfig, Problem
from neobert.config.deepspeed import DeepSpeedConfig, complete
from neobert.config.deepspeed_file import Fact, facts_of_batches, facts_of_updates
from neobert.config.pretrain import PretrainTrainer
from neobert.config.sections import OptimizerConfig, SchedulerConfig, TrainerConfig
from neobert.training import deepspeed

log = logging.getLogger(__name__)

AnyTrainer = TypeVar("AnyTrainer", TrainerConfig, PretrainTrainer)

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def training_arguments(
    trainer: TrainerConfig,
    optimizer: OptimizerConfig,
    scheduler: SchedulerConfig,
    deepspeed_section: DeepSpeedConfig | None = None,
    *,
    seed: int,
    train_examples: int,
    world_size: int,
    metric: str,
    greater_is_better: bool,
    evaluates: bool,
    checkpoints: Path,
) -> TrainingArguments:
    """Of a fine-tuning. `metric` names what chooses the best checkpoint; one is saved at every evaluation.

    Where it does not evaluate, checkpoints are saved when it would.

    With a DeepSpeed section, DeepSpeed is ready to be used afterwards.
    """
    trainer = with_precision(trainer)
    steps = total_steps(trainer, train_examples, world_size)
    scheduler = with_some_learning_rate(scheduler, steps)
    return _build(
        trainer,
        deepspeed_section,
        facts_of_batches(trainer, world_size) | facts_of_updates(optimizer, scheduler, steps),
        world_size,
        output_dir=str(checkpoints),
        seed=seed,
        # The sampler of epoch e is seeded with this number + e: with neighbouring seeds, two trials of a sweep would
        # see the same orders of the data, one epoch apart.
        data_seed=seed * 1_000_003 % 2**31,
        max_steps=steps,
        learning_rate=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_epsilon=optimizer.eps,
        lr_scheduler_type=SCHEDULES[scheduler.name],
        warmup_steps=scheduler.warmup_steps,
        eval_strategy=trainer.eval_strategy if evaluates else "no",
        save_strategy=trainer.eval_strategy,
        eval_steps=trainer.eval_steps,
        save_steps=trainer.eval_steps or 500,  # not read with save_strategy="epoch"
        metric_for_best_model=metric if evaluates else None,
        greater_is_better=greater_is_better if evaluates else None,
        dataloader_num_workers=trainer.dataloader_num_workers,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def pretraining_arguments(
    config: PretrainConfig, *, world_size: int, max_steps: int, evaluates: bool, checkpoints: Path
) -> TrainingArguments:
    """Of a pretraining, which has a data order, an optimizer and a schedule of its own.

    With a DeepSpeed section, DeepSpeed is ready to be used afterwards.
    """
    trainer = with_precision(config.trainer)
    # Before Ampere there is no TF32, and TrainingArguments would complain of being asked for it.
    has_tf32 = not trainer.use_cpu and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return _build(
        trainer,
        config.deepspeed,
        facts_of_batches(trainer, world_size),
        world_size,
        output_dir=str(checkpoints),
        seed=config.seed,
        max_steps=max_steps,
        learning_rate=config.optimizer.lr,
        eval_strategy="steps" if evaluates and trainer.eval_steps else "no",
        eval_steps=trainer.eval_steps,
        save_strategy="steps",
        save_steps=trainer.save_steps,
        ignore_data_skip=True,  # the data begins where the checkpoint says
        remove_unused_columns=False,
        label_names=["labels"],
        **({"tf32": trainer.tf32} if has_tf32 else {}),
    )


def with_precision(trainer: AnyTrainer) -> AnyTrainer:
    """The same, with `mixed_precision: auto` as what it means on this machine: bf16 where it is the fastest."""
    if trainer.mixed_precision != "auto":
        return trainer
    if trainer.use_cpu or not torch.cuda.is_available():
        pays = _computes_bf16()
    else:
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    log.info("mixed_precision: auto is %s on this device", "bf16" if pays else "no")
    return trainer.model_copy(update={"mixed_precision": "bf16" if pays else "no"})


def with_some_learning_rate(scheduler: SchedulerConfig, steps: int) -> SchedulerConfig:
    """The same, but without a warm-up where it would take the only step of the training.

    Hugging Face counts the steps of a warm-up from 0, so that the first one has a learning rate of 0.
    """
    return scheduler.model_copy(update={"warmup_steps": 0.0}) if steps == 1 else scheduler


def _build(
    trainer: AnyTrainer, deepspeed_section: DeepSpeedConfig | None, known: dict[str, Fact], world_size: int, **more: Any
) -> TrainingArguments:
    """What every training has in common, and `more`."""
    on_cpu = trainer.use_cpu or not torch.cuda.is_available()
    if on_cpu and trainer.mixed_precision == "fp16":
        raise ConfigError([Problem(("trainer", "mixed_precision"), "is fp16, which needs a GPU; bf16 works without")])
    if on_cpu and trainer.mixed_precision == "bf16" and not _computes_bf16():
        log.warning("this CPU has no instructions for bf16: a training with mixed_precision: no is many times faster")
    settings = None
    if deepspeed_section is not None:
        settings = complete(deepspeed_section, known)
        deepspeed.start(settings, on_cpu)
    arguments = TrainingArguments(
        per_device_train_batch_size=trainer.per_device_train_batch_size,
        per_device_eval_batch_size=trainer.per_device_eval_batch_size,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
        # Newer versions warn of this name even where it is off, and know the new one that older versions lack.
        **({"gradient_checkpointing": True} if trainer.gradient_checkpointing else {}),
        max_grad_norm=trainer.gradient_clipping or 0.0,
        bf16=trainer.mixed_precision == "bf16",
        fp16=trainer.mixed_precision == "fp16",
        # Both are ours: Trainer would count every checkpoint, complete or not, and load what we read from a file.
        save_total_limit=None,
        load_best_model_at_end=False,
        logging_steps=trainer.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it shows the last finite loss in place of NaN
        disable_tqdm=True,
        report_to=[],
        log_level="warning",
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world_size > 1 else None,
        dataloader_pin_memory=not on_cpu,
        accelerator_config={"non_blocking": not on_cpu},  # batches go to the device while it computes
        deepspeed=settings,
        **more,
    )
    if settings is not None and world_size == 1:
        deepspeed.join_alone(on_cpu)
    # A process drives one GPU. With more in sight, Trainer would split every batch over all of them (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _computes_bf16() -> bool:
    """Without AVX512-BF16 or AMX, products of bf16 took 7 to 100 times as long as those of fp32 (an EPYC with AVX2)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def total_steps(trainer: TrainerConfig, train_examples: int, world_size: int) -> int:
    """Optimiser steps of the whole training; an epoch's last step may be a smaller batch."""
    batches = math.ceil(math.ceil(train_examples / trainer.per_device_train_batch_size) / world_size)
    steps = math.ceil(trainer.num_train_epochs * math.ceil(batches / trainer.gradient_accumulation_steps))
    return min(steps, trainer.max_steps or steps)
