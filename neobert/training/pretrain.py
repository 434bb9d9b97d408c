"""Pretrains an encoder: to the end, or to a checkpoint when asked to stop."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from neobert.checkpoint.unpickling import restricted
from neobert.config import ConfigError, PretrainConfig, expand_home, read_yaml, validate
from neobert.config.pretrain import decay_too_long
from neobert.data.text.stream import Place
from neobert.data.text.training import LANES, TrainingData, load_data
from neobert.errors import RunError
from neobert.model.alignment import align_weights
from neobert.model.pretraining import build_model, check_backend
from neobert.training import checkpoints, deepspeed, universal
from neobert.training.affinity import bind_to_gpu
from neobert.training.allocator import keep_freed_memory
from neobert.training.arguments import pretraining_arguments
from neobert.training.callbacks import Restored, StopOnNaN, StopWhenAsked
from neobert.training.checkpoints import Checkpoint
from neobert.training.distributed import Ranks
from neobert.training.ended import read_ending
from neobert.training.exchange import broadcast
from neobert.training.files import TrialFiles, read_json
from neobert.training.finetune import forget_lost_steps, reports
from neobert.training.libraries import spare_deepspeed_import
from neobert.training.preemption import Preemption
from neobert.training.pretraining import PLACE, PretrainTrainer
from neobert.training.profiling import Profiling
from neobert.training.progress import Progress
from neobert.training.resuming import newest_checkpoint
from neobert.training.schedules import Schedule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a finished pretraining came to; `metrics` are those of the last evaluation, or of the training."""

    metrics: dict[str, float]
    steps: int
    tokens: int
    seconds: float
    baseline: float | None
    """How often the commonest of the masked tokens would have been right; None without held-out text."""
    losses: tuple[float, ...]
    """Training losses as they were logged, in order."""
    guess: float
    """The loss of equal shares for all tokens."""


@dataclass(frozen=True)
class Length:
    """How long a training is: in steps, or in tokens; for these, `steps` is more than they can take."""

    steps: int
    tokens: int | None


def pretrain(config: PretrainConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> Outcome | None:
    """Trains from the newest complete checkpoint, if there is one; None when asked to stop."""
    spare_deepspeed_import()
    transformers.set_seed(config.seed)
    data = load_data(config)
    if config.trainer.eval_steps and not data.held_out:
        raise ConfigError.at(
            ("trainer", "eval_steps"),
            "nothing is held out to evaluate on: make shards with `neobert preprocess validation_fraction=0.01`, name "
            "text in dataset.validation, or leave this out",
        )
    _check_held_out(config, data)
    length = _length(config, data)
    schedule = _schedule(config, length)
    args = pretraining_arguments(
        config, world_size=ranks.world_size, max_steps=length.steps, evaluates=bool(data.held_out),
        checkpoints=paths.checkpoints,
    )  # fmt: skip
    if args.device.type == "cuda":
        bind_to_gpu(args.device.index or 0)
    else:
        keep_freed_memory()
    resumed = newest_checkpoint(paths, ranks)  # now that the processes can speak to each other
    if resumed is None:
        _check_where_it_begins(paths, config, ranks)
    start = resumed or _given_checkpoint(config, ranks)
    if ranks.is_main:
        forget_lost_steps(paths, resumed)
    found = _read_place(start, resumed) if start else None
    place, tokens = _place(start, found, config, ranks, data)
    load_from = start.path if start else None
    reshaped = universal.is_needed(start, config.deepspeed.stage if config.deepspeed else 0, ranks)
    if start and reshaped:
        load_from = universal.converted(start, paths, ranks, args)
    state = TrainerState(**start.state) if start else TrainerState()
    known = length.steps if length.tokens is None else 0
    progress = Progress(paths.progress if ranks.is_main else None, state.global_step, known)
    with deepspeed.whole_model(), _advising(start, resumed):
        model = build_model(config.model, data.tokenizer, config.dataset.max_seq_length, start.path if start else None)
    check_backend(model, args.device, torch.bfloat16 if args.bf16 else torch.float32)
    if args.device.type == "cpu":
        align_weights(model)
    if config.trainer.torch_compile:
        model.compile_blocks()  # the whole would be compiled anew for nearly every batch
    windows = data.windows(place.lanes)
    mine = data.held_out[ranks.rank :: ranks.world_size]
    mine += [windows.idle] * (-(-len(data.held_out) // ranks.world_size) - len(mine))  # as many in every process
    trainer = PretrainTrainer(
        config=config, windows=windows, place=place, tokens=tokens, data=data, schedule=schedule,
        max_tokens=length.tokens, held_out=mine,
        model=model, args=args, processing_class=data.tokenizer, progress=progress,
        keep_checkpoints=config.trainer.save_total_limit,
    )  # fmt: skip
    if start:
        trainer.restore_judgement(start.path, own=resumed is not None)
    stop = StopWhenAsked(preemption)
    if load_from and reshaped:
        if config.deepspeed and config.deepspeed.stage == 3:
            trainer.add_callback(universal.MendStage3(trainer))
        if ranks.is_main:
            trainer.add_callback(universal.RemoveConverted(load_from))
    if config.trainer.profile_steps and ranks.is_main:
        trainer.add_callback(Profiling(config.trainer.profile_steps, paths.profile))
    for callback in [
        OwnIntervals(),
        StopOnNaN(),
        *(reports(paths, progress, resumed) if ranks.is_main else []),
        EndWhenDone(trainer),
        stop,
    ]:
        trainer.add_callback(callback)
        if start and isinstance(callback, Restored):
            callback.restore(state)
    if ranks.is_main:
        for warning in _unexpected(config, schedule, start, resumed, found, data, ranks):
            log.warning("%s", warning)
    _announce(trainer, data, length, start, resumed)
    if not _finished(trainer, state):
        with restricted():
            trainer.train(resume_from_checkpoint=str(load_from) if load_from else None)
        state = trainer.state
        if stop.stopped and not _finished(trainer, state):
            log.info("asked to stop: checkpoint saved at step %d", state.global_step)
            progress.end("stopped")
            return None
    trainer.write_model(paths.model)
    progress.end("done")
    return _outcome(trainer, state, data)


class OwnIntervals(TrainerCallback):
    """Evaluates, logs and saves as often as the settings say, and not as that of the checkpoint did."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class EndWhenDone(TrainerCallback):
    """At the end of the training, in steps or tokens: an evaluation and a checkpoint, and no more steps."""

    def __init__(self, trainer: PretrainTrainer):
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if _finished(self._trainer, state):
            control.should_training_stop = control.should_save = control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"


def _finished(trainer: PretrainTrainer, state: TrainerState) -> bool:
    if trainer.max_tokens is not None:
        return trainer.tokens >= trainer.max_tokens
    return state.global_step >= trainer.args.max_steps


def _given_checkpoint(config: PretrainConfig, ranks: Ranks) -> Checkpoint | None:
    """The one to begin from, of another trial: its directory, the trial's, or that of the trial's checkpoints.

    The main process verifies it for all.
    """
    path = config.starts_from
    if path is None:
        return None
    directory, fault = _find_start(path) if ranks.is_main else (None, None)
    directory, fault = broadcast([directory and str(directory), fault])
    if directory is None:
        raise ConfigError.at(("trainer", "resume_from_checkpoint"), fault)
    return checkpoints.at_path(Path(directory))


def _find_start(path: Path) -> tuple[Path | None, str]:
    """Return the checkpoint that a setting means, or why there is none."""
    for directory in (path / "checkpoints", path):
        if any(directory.glob("checkpoint-*")):
            newest = checkpoints.newest_complete(directory)
            return (newest.path if newest else None), f"{path} holds no complete checkpoint"
        if read_ending(directory):
            return (None, f"{path} holds no checkpoint: trainer.keep: best has kept the model alone")
    fault = checkpoints.find_fault(path) or checkpoints.find_no_state(path)
    return (None if fault else path), f"{path} holds no complete checkpoint: {fault}"


def _check_where_it_begins(paths: TrialFiles, config: PretrainConfig, ranks: Ranks) -> None:
    """Where none of a trial's checkpoints can be used it begins again, and that has to be where it began before."""
    fault = broadcast(_other_beginning(paths, config) if ranks.is_main else None)
    if fault is not None:
        raise ConfigError.at(("trainer", "resume_from_checkpoint"), *fault)


def _other_beginning(paths: TrialFiles, config: PretrainConfig) -> tuple[str, str] | None:
    """What is wrong with the beginning, and where that is written; None where nothing is."""
    source = read_yaml(paths.config)
    before = expand_home(validate(PretrainConfig, source.data["config"])).trainer.resume_from_checkpoint
    now = config.trainer.resume_from_checkpoint
    if before == now:
        return None
    message = (
        f"is {before!r} there and {now!r} here, and no checkpoint of the trial itself is complete, so that it has to "
        "begin again. Begin where it began before, or choose another --output-dir"
    )
    return message, source.where(("config", "trainer", "resume_from_checkpoint"))


@contextmanager
def _advising(start: Checkpoint | None, resumed: Checkpoint | None) -> Iterator[None]:
    """Lets an error that tells of a damaged checkpoint say what to do: its files had the right sizes, and no more."""
    try:
        yield
    except RunError as error:
        if start is None:
            raise
        other = "name another in trainer.resume_from_checkpoint"
        if resumed is not None:
            other = (
                f"remove {start.path}, and the same command goes on from the checkpoint before it, or anew if there is "
                "none"
            )
        raise RunError(f"{error}. To go on without this checkpoint, {other}") from None


def _read_place(start: Checkpoint, resumed: Checkpoint | None) -> dict[str, Any]:
    path = start.path / PLACE
    with _advising(start, resumed):
        found = read_json(path)
        try:
            Place.from_json(found)
            missing = {"tokens", "source"} - found.keys()
        except (KeyError, TypeError, ValueError, AttributeError):
            missing = {"lanes", "reached"}
        if missing:
            raise RunError(f"{path} is damaged: expected {' and '.join(sorted(missing))} in it")
        return found


def _place(
    start: Checkpoint | None, found: dict[str, Any] | None, config: PretrainConfig, ranks: Ranks, data: TrainingData
) -> tuple[Place, int]:
    """Where the training begins in its data, and how many tokens it has seen by then.

    `found` is what the checkpoint tells of that.
    """
    if start is None or found is None:
        place, tokens = Place(config.dataset.lanes or LANES * ranks.world_size), 0
    else:
        changed = [name for name, value in data.source.items() if found["source"].get(name) != value]
        if changed:
            raise RunError(
                f"{start.path} was trained on other data, or on the same in another form: its {' and '.join(changed)} "
                f"{'differ' if changed[1:] else 'differs'}. Start with what it was before, or begin anew: from its "
                "weights, with model.name_or_path"
            )
        place, tokens = Place.from_json(found), found["tokens"]
    if place.lanes % ranks.world_size:
        raise RunError(
            f"the data comes in {place.lanes} lanes, which {ranks.world_size} processes cannot share evenly. Start a "
            f"number of processes that divides {place.lanes}"
            + ("" if start else f", or set dataset.lanes: {LANES * ranks.world_size}")
        )
    return place, tokens


def _check_held_out(config: PretrainConfig, data: TrainingData) -> None:
    """Refuse held-out text without a masked token: the loss of an evaluation would be 0 by 0."""
    if data.held_out and not any((row.labels >= 0).any() for row in data.held_out):
        tokens = sum(len(row.ids) for row in data.held_out)
        message = (
            f"none of the {tokens} tokens of the held-out text is masked (datacollator.mlm_probability is "
            f"{config.datacollator.mlm_probability:g}), so an evaluation has nothing to measure. Hold out more text"
        )
        raise ConfigError.at(("dataset",), message)


def _length(config: PretrainConfig, data: TrainingData) -> Length:
    trainer = config.trainer
    if trainer.max_steps is not None:
        return Length(trainer.max_steps, None)
    tokens = trainer.max_tokens
    if tokens is None:
        assert data.tokens is not None, "PretrainConfig refuses epochs of streams and of weighted sources"
        tokens = round(float(trainer.num_train_epochs or 0) * data.tokens)
    # Every step has at least one token.
    return Length(min(tokens, 2**31 - 1), tokens)


def _schedule(config: PretrainConfig, length: Length) -> Schedule:
    """In shares of the whole training.

    A warm-up that is longer than that does not come to its end. A decay that is longer has no beginning, and is refused
    by a `ConfigError`.
    """
    section = config.scheduler
    whole, unit = (length.tokens, "tokens") if length.tokens else (length.steps, "steps")

    def share(kind: str, otherwise: float) -> float:
        count, ratio = getattr(section, f"{kind}_{unit}"), getattr(section, f"{kind}_ratio")
        return count / whole if count is not None else ratio if ratio is not None else otherwise

    warmup, decay = share("warmup", 0.02), share("decay", 0.2)
    if decay > 1:
        raise ConfigError.at(("scheduler", f"decay_{unit}"), decay_too_long(whole, unit))
    return Schedule(section.name, warmup, decay, section.final_lr_ratio)


def _unexpected(
    config: PretrainConfig, schedule: Schedule, start: Checkpoint | None, resumed: Checkpoint | None,
    found: dict[str, Any] | None, data: TrainingData, ranks: Ranks,
) -> Iterator[str]:  # fmt: skip
    """What is done otherwise than a user may think who has read the settings alone."""
    if schedule.warmup > 1:
        yield (f"the warm-up is longer than the training: the learning rate comes to {1 / schedule.warmup:.3g} of "
               "optimizer.lr, and not down again")  # fmt: skip
    if config.datacollator.pack_sequences and config.datacollator.pad_to_multiple_of > 1:
        yield "datacollator.pad_to_multiple_of does nothing: with pack_sequences there is no padding"
    if start is None or found is None:
        return
    lanes = config.dataset.lanes
    if lanes is not None and lanes != found["lanes"]:
        yield f"dataset.lanes is {lanes}, but the {found['lanes']} lanes of {start.path} count"
    if config.model.name_or_path is not None and resumed is None:
        yield f"the weights are those of {start.path}, and not of model.name_or_path, {config.model.name_or_path}"
    before = found.get("versions", data.versions)  # older checkpoints do not tell
    for place, version in data.versions.items():
        if before.get(place) != version:
            yield (f"{place}: a file has another time than when {start.path} was written. If its text is another, too, "
                   "pieces may be repeated or left out")  # fmt: skip
    if resumed is not None and resumed.processes != ranks.world_size:
        one = config.trainer.per_device_train_batch_size * config.trainer.gradient_accumulation_steps
        yield (f"{start.path} was written by {start.processes} processes, and now there are {ranks.world_size}: a step "
               f"has {one * ranks.world_size} rows instead of {one * start.processes}")  # fmt: skip


def _announce(
    trainer: PretrainTrainer, data: TrainingData, length: Length, start: Checkpoint | None, resumed: Checkpoint | None
) -> None:
    args, config = trainer.args, trainer.model.config
    size = sum(weight.numel() for weight in trainer.model.parameters())
    log.info("model: %d x %d, %.1f M weights, vocabulary of %d", config.num_hidden_layers, config.hidden_size,
             size / 1e6, config.vocab_size)  # fmt: skip
    known = "as it comes" if data.tokens is None else f"{data.tokens / 1e6:.1f} M tokens an epoch"
    log.info("data: %s; held out: %d rows", known, len(data.held_out))
    goal = f"{length.tokens / 1e6:.1f} M tokens" if length.tokens else f"{length.steps} steps"
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    log.info("training: %s, %d rows a step on %d x %s, lr %g, %s", goal, rows, args.world_size, args.device.type,
             args.learning_rate, _beginning(start, resumed))  # fmt: skip


def _beginning(start: Checkpoint | None, resumed: Checkpoint | None) -> str:
    if start is None:
        return "from the beginning: the trial has no checkpoint yet"
    return f"{'resumed' if resumed else 'begun'} from step {start.step} ({start.path})"


def _outcome(trainer: PretrainTrainer, state: TrainerState, data: TrainingData) -> Outcome:
    history = state.log_history
    evaluated = [entry for entry in history if "eval_loss" in entry]
    if evaluated:
        metrics = {
            name.removeprefix("eval_"): value for name, value in evaluated[-1].items() if name.startswith("eval_")
        }
        metrics["perplexity"] = math.exp(min(metrics["loss"], 700.0))
    else:
        losses = [entry["loss"] for entry in history if "loss" in entry]
        if not losses:
            raise RunError("no loss was measured: in all of the training no token was masked. Give it more text")
        metrics = {"loss": losses[-1]}
    for rate in ("samples_per_second", "tokens_per_second", "mfu"):
        found = [entry[rate] for entry in history if rate in entry]
        if found:
            metrics[rate] = statistics.median(found)
    return Outcome(
        metrics, state.global_step, trainer.tokens, trainer.progress.seconds, _baseline(data),
        losses=tuple(entry["loss"] for entry in history if "loss" in entry),
        guess=math.log(trainer.model.config.vocab_size),
    )  # fmt: skip


def _baseline(data: TrainingData) -> float | None:
    if not data.held_out:
        return None
    masked = np.concatenate([row.labels[row.labels >= 0] for row in data.held_out])
    return float(np.bincount(masked).max() / len(masked))
