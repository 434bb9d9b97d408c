"""Fine-tunes a classifier: to the end, or to a checkpoint when asked to stop."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainerState

from neobert.config import ConfigError, GlueConfig
from neobert.data.examples import Splits
from neobert.data.facts import SHOWN
from neobert.data.tokenizing import Collator
from neobert.errors import RunError
from neobert.model import neighbours
from neobert.model.alignment import align_weights
from neobert.model.dropout import replace_dropout
from neobert.model.loading import Classifier, build_classifier
from neobert.model.settling import settle
from neobert.model.unpadding import spare_padding, takes_padding_left, warn_of_padding
from neobert.training import checkpoints, deepspeed, graphs, metrics
from neobert.training.affinity import bind_to_gpu
from neobert.training.allocator import keep_freed_memory
from neobert.training.arguments import training_arguments
from neobert.training.callbacks import (
    EarlyStopping,
    LogLast,
    Report,
    Restored,
    StepResults,
    StopOnNaN,
    StopWhenAsked,
    tensorboard,
)
from neobert.training.classifying import ClassifierTrainer, balanced_weights
from neobert.training.console import Console
from neobert.training.distributed import Ranks
from neobert.training.embeddings import train_rows_in_use
from neobert.training.files import TrialFiles, drop_lines_after
from neobert.training.libraries import spare_deepspeed_import
from neobert.training.outcome import Outcome, outcome_of, tokens_of
from neobert.training.preemption import Preemption
from neobert.training.progress import Progress
from neobert.training.resuming import (
    check_best,
    check_same_data,
    found_once,
    newest_checkpoint,
    record_data,
    trains_unlisted_rows,
)

log = logging.getLogger(__name__)


def finetune(
    config: GlueConfig, splits: Splits, paths: TrialFiles, ranks: Ranks, preemption: Preemption
) -> Outcome | None:
    """Trains and evaluates, from the newest complete checkpoint if there is one; None when asked to stop."""
    spare_deepspeed_import()
    args = _arguments(config, splits, paths, ranks)
    if args.device.type == "cuda":
        bind_to_gpu(args.device.index or 0)
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans for each length anew, which takes longer than a step
    else:
        keep_freed_memory()
    resumed = newest_checkpoint(paths, ranks)
    if resumed:
        check_same_data(paths, splits)
        _check_same_training(args, resumed)
    if ranks.is_main:
        forget_lost_steps(paths, resumed)
        if not resumed:
            record_data(paths, splits)
    state = TrainerState(**resumed.state) if resumed else TrainerState()
    if splits.tests and state.best_global_step is not None:
        check_best(paths, state.best_global_step)
    progress = Progress(paths.progress if ranks.is_main else None, state.global_step, state.max_steps)
    stop = StopWhenAsked(preemption)
    early = EarlyStopping(config.trainer.early_stopping_patience, config.trainer.early_stopping_threshold)
    transformers.set_seed(config.seed)
    with deepspeed.whole_model():
        classifier = build_classifier(
            config.model,
            splits,
            config.data.max_length,
            resumed.path if resumed else None,
            with_head=not config.do_train,
        )
    size = sum(weight.numel() for weight in classifier.model.parameters())
    log.info("model: %s, %.1f M weights", type(classifier.model).__name__, size / 1e6)
    trainer = _trainer(config, splits, classifier, args, progress)
    longest = _longest_text(trainer, classifier, config, splits)
    settle(classifier.model, longest, trainer.data_collator)
    if args.device.type == "cpu":
        align_weights(classifier.model)
        replace_dropout(classifier.model)
    padding_matters = partial(
        found_once, paths, ranks, "padding matters", partial(_padding_matters, trainer, classifier, longest)
    )
    if config.deepspeed:  # which takes modules in its own hands
        warn_of_padding(classifier.model, padding_matters)
    else:
        kind = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        spared = spare_padding(classifier.model, args.device, padding_matters, kind)
        few_rows = config.do_train and _train_rows_in_use(
            classifier, trainer, resumed, trains_unlisted_rows(paths, ranks)
        )
        if spared and not few_rows and config.trainer.cuda_graphs and graphs.can_record(classifier.model, args):
            trainer.graphs = graphs.StepGraphs(trainer.loss, config.data.max_length)
    for callback in [
        *([StopOnNaN()] if config.do_train else []),
        *([] if config.do_eval else [LogLast()]),
        *(reports(paths, progress, resumed, _title(config, splits)) if ranks.is_main else []),
        *([StepResults(paths)] if ranks.is_main else []),
        early,
        stop,
    ]:
        trainer.add_callback(callback)
        if resumed and isinstance(callback, Restored):
            callback.restore(state)
    _announce(trainer, config, resumed)

    if config.do_train and not _finished(state, args, early):
        _check_can_go_on(resumed)
        trainer.train(resume_from_checkpoint=str(resumed.path) if resumed else None)
        state = trainer.state
        if stop.stopped and not _finished(state, args, early):
            log.info("asked to stop: checkpoint saved at step %d of %d", state.global_step, state.max_steps)
            progress.end("stopped")
            return None
    outcome = outcome_of(state, trainer, classifier, config, splits, paths)
    progress.end("done")
    return outcome


def _arguments(config: GlueConfig, splits: Splits, paths: TrialFiles, ranks: Ranks) -> transformers.TrainingArguments:
    metric, greater_is_better = config.selection(splits.task)
    return training_arguments(
        config.trainer, config.optimizer, config.scheduler, config.deepspeed, seed=config.seed, metric=metric,
        greater_is_better=greater_is_better, evaluates=config.do_eval, world_size=ranks.world_size,
        train_examples=len(splits.train) or 1,  # a schedule of no steps is none that DeepSpeed takes
        checkpoints=paths.checkpoints,
    )  # fmt: skip


def _trainer(
    config: GlueConfig, splits: Splits, classifier: Classifier, args: transformers.TrainingArguments, progress: Progress
) -> ClassifierTrainer:
    return ClassifierTrainer(
        model=classifier.model,
        args=args,
        train_dataset=tokens_of(splits.train, classifier, config) if config.do_train else None,
        # Neighbours of like length need the least padding; the order of a dev set has no influence on its metrics.
        eval_dataset={suffix: tokens_of(dev, classifier, config).by_length() for suffix, dev in splits.dev.items()},
        data_collator=Collator(
            classifier.tokenizer, splits.task.is_regression, may_left=takes_padding_left(classifier.model)
        ),
        processing_class=classifier.tokenizer,
        metrics=partial(metrics.compute, splits.task),
        score=partial(metrics.score, splits.task, config.selection(splits.task)[0]),
        class_weights=_class_weights(config, splits),
        progress=progress,
        keep_checkpoints=config.trainer.save_total_limit,
    )


def _class_weights(config: GlueConfig, splits: Splits) -> torch.Tensor | None:
    if not config.do_train or config.trainer.class_weights is None:
        return None
    try:
        weights = balanced_weights(splits.task, splits.train.labels)
    except ValueError as error:
        raise ConfigError.at(("trainer", "class_weights"), str(error)) from None
    told = [f"{label} {weight:.4g}" for label, weight in zip(splits.task.labels, weights.tolist(), strict=True)]
    log.info("class weights: %s%s", ", ".join(told[:SHOWN]), ", ..." if told[SHOWN:] else "")
    return weights


def _longest_text(
    trainer: ClassifierTrainer, classifier: Classifier, config: GlueConfig, splits: Splits
) -> dict[str, Any]:
    """Of those to train on and to be scored; of the test sets where these are all."""
    sets = [trainer.train_dataset] if config.do_train else []
    sets += [dev.dataset for dev in trainer.eval_dataset.values()]
    longest = max(sets or [tokens_of(splits.some(), classifier, config)], key=lambda texts: texts.lengths.max())
    example: dict[str, Any] = longest[int(longest.lengths.argmax())]
    return example


def _padding_matters(trainer: ClassifierTrainer, classifier: Classifier, longest: dict[str, Any]) -> bool:
    """As the longest text shows."""
    return neighbours.matter(classifier.model, longest, classifier.tokenizer.all_special_ids, trainer.data_collator)


def _train_rows_in_use(
    classifier: Classifier, trainer: ClassifierTrainer, resumed: checkpoints.Checkpoint | None, unlisted: bool
) -> bool:
    """Weight decay reaches all rows; and on GPUs to update them all costs next to no time."""
    pays = trainer.args.device.type == "cpu" and trainer.args.weight_decay == 0
    ids = np.append(trainer.train_dataset.columns["input_ids"], classifier.tokenizer.pad_token_id)
    return train_rows_in_use(classifier.model, ids, pays, resumed.path if resumed else None, unlisted)


def forget_lost_steps(paths: TrialFiles, resumed: checkpoints.Checkpoint | None) -> None:
    paths.checkpoints.mkdir(exist_ok=True)
    checkpoints.clear_partial(paths.checkpoints)
    step = resumed.step if resumed else -1
    drop_lines_after(paths.metrics, step)
    for found, path in paths.step_results():
        if found > step:
            path.unlink()


def reports(
    paths: TrialFiles, progress: Progress, resumed: checkpoints.Checkpoint | None, score: str = ""
) -> list[transformers.TrainerCallback]:
    """`score` is the name of the metric that evaluations are judged by, where there is one."""
    return [Report(progress, paths.metrics), Console(progress, score), tensorboard(paths.tensorboard, resumed)]


def _title(config: GlueConfig, splits: Splits) -> str:
    return splits.task.title(config.selection(splits.task)[0])


def _announce(trainer: ClassifierTrainer, config: GlueConfig, resumed: checkpoints.Checkpoint | None) -> None:
    args = trainer.args
    if not config.do_train:
        log.info("no training: the weights are looked at as they are")
        return
    lengths = trainer.train_dataset.lengths
    log.info("tokens: %.0f an example on average, %d at most", lengths.mean(), lengths.max())
    log.info(
        "training: %d steps of %d examples on %d x %s%s, lr %g%s", args.max_steps,
        args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size, args.world_size,
        args.device.type, _sharing(args), args.learning_rate,
        f", resumed from step {resumed.step}" if resumed else "",
    )  # fmt: skip


def _sharing(args: transformers.TrainingArguments) -> str:
    if not args.deepspeed:
        return ""
    return f" with DeepSpeed (ZeRO stage {args.deepspeed['zero_optimization'].get('stage', 0)})"


def _check_same_training(args: transformers.TrainingArguments, resumed: checkpoints.Checkpoint) -> None:
    """With other data or another number of processes, a checkpoint's place in the data means something else.

    DeepSpeed's shards, too, are those of so many processes.
    """
    before, now = resumed.processes, args.world_size
    if before not in (now, 0):
        raise RunError(
            f"the number of processes was {before} when {resumed.path} was written, and is {now} now. Start as many as "
            "before, or remove the checkpoints to begin anew."
        )
    before, now = resumed.state["max_steps"], args.max_steps
    if before != now:
        raise RunError(
            f"{resumed.path} belongs to a training of {before} steps, but this one has {now}: the data has changed "
            "since. Start it as before, or remove the checkpoints to begin anew."
        )


def _check_can_go_on(resumed: checkpoints.Checkpoint | None) -> None:
    if resumed and resumed.is_model_alone:
        raise RunError(
            f"{resumed.path} holds a model without training state, so no training can go on from it. Remove "
            f"{resumed.path.parent} to begin anew"
        )


def _finished(state: TrainerState, args: transformers.TrainingArguments, early: EarlyStopping) -> bool:
    return state.global_step >= args.max_steps or early.exhausted
