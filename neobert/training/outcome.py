"""What a finished fine-tuning came to: the metrics of the weights that count, and their predictions."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import TrainerState

from neobert.config import GlueConfig
from neobert.data.examples import Examples, Splits
from neobert.data.token_cache import tokenized
from neobert.data.tokenizing import Tokenized
from neobert.errors import RunError
from neobert.model.loading import Classifier
from neobert.training import checkpoints
from neobert.training.classifying import ClassifierTrainer
from neobert.training.files import TrialFiles
from neobert.training.resuming import check_best

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a finished trial came to.

    `metrics` are those of the best checkpoint; without evaluations, the mean loss of the steps since the log before the
    last. `step` is that of the weights that are meant, 0 for weights that were only looked at.
    """

    metrics: dict[str, float]
    step: int
    steps: int
    epochs: float
    seconds: float
    outputs: dict[str, Array]
    """(examples, classes) of each test set, from those weights."""
    tests: dict[str, dict[str, float]]
    """The metrics of each test set that has labels, from those weights."""
    losses: tuple[float, ...] = ()
    """Training losses as they were logged, in order."""
    warmup_steps: int = 0


def outcome_of(
    state: TrainerState, trainer: ClassifierTrainer, classifier: Classifier, config: GlueConfig, splits: Splits,
    paths: TrialFiles,
) -> Outcome:  # fmt: skip
    """Evaluates weights that were not trained, and predicts; raises `RunError` for numbers that are not finite."""
    metrics, step = _scored(state, trainer, config)
    for rate in ("samples_per_second", "tokens_per_second"):
        found = [entry[rate] for entry in state.log_history if rate in entry]
        metrics |= {rate: statistics.median(found)} if found else {}
    if splits.tests and config.do_train and config.do_eval:
        if trainer.args.should_save:
            check_best(paths, step)
        trainer.load_weights(checkpoints.at_step(paths.checkpoints, step).path / "model.safetensors")
    outputs = {
        name: trainer.outputs(tokens_of(Examples(test.texts), classifier, config))
        for name, test in splits.tests.items()
    }
    outcome = Outcome(
        metrics, step, state.global_step, float(state.epoch or 0.0), trainer.progress.seconds, outputs,
        tests=_judged(outputs, trainer, splits),
        losses=tuple(entry["loss"] for entry in state.log_history if "loss" in entry),
        warmup_steps=trainer.args.get_warmup_steps(trainer.args.max_steps),
    )  # fmt: skip
    _check_finite(outcome, config.selection(splits.task)[0], splits)
    return outcome


def tokens_of(examples: Examples, classifier: Classifier, config: GlueConfig) -> Tokenized:
    return tokenized(examples, classifier.tokenizer, config.data.max_length, classifier.inputs)


def _scored(state: TrainerState, trainer: ClassifierTrainer, config: GlueConfig) -> tuple[dict[str, float], int]:
    """The metrics that count, and the step that they are of."""
    if not config.do_train:
        return (_named_plainly(trainer.evaluate()) if config.do_eval else {}), 0
    if config.do_eval:
        return _of_best(state, trainer)
    return {"loss": float([entry["loss"] for entry in state.log_history if "loss" in entry][-1])}, state.global_step


def _of_best(state: TrainerState, trainer: ClassifierTrainer) -> tuple[dict[str, float], int]:
    best = state.best_global_step
    if best is None:
        raise RunError(f"no evaluation gave a finite {trainer.args.metric_for_best_model}: the training has diverged")
    evaluated = [entry for entry in state.log_history if "eval_score" in entry and entry["step"] == best]
    return _named_plainly(evaluated[-1]), best


def _named_plainly(evaluated: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("eval_"): value for name, value in evaluated.items() if name.startswith("eval_")}


def _judged(outputs: dict[str, Array], trainer: ClassifierTrainer, splits: Splits) -> dict[str, dict[str, float]]:
    kind = np.float32 if splits.task.is_regression else np.int64
    labelled = {name: np.asarray(test.labels, kind) for name, test in splits.tests.items() if test.labels}
    return {name: trainer.judge(outputs[name], labels) for name, labels in labelled.items()}


def _check_finite(outcome: Outcome, metric: str, splits: Splits) -> None:
    """Raises `RunError` for scores and outputs that are no finite numbers: the largest of several NaN is class 0."""
    broken = [
        f"{name} is {outcome.metrics[name]}"
        for name in dict.fromkeys((*splits.task.scored, *splits.task.parts(metric)))
        if not math.isfinite(outcome.metrics.get(name, 0.0))
    ]
    for name, found in outcome.outputs.items():
        examples = int((~np.isfinite(found)).any(axis=1).sum())
        if examples:
            broken.append(f"{examples} of {len(found)} predictions for {name} are no numbers")
    if broken:
        raise RunError(
            f"what the model computes is not finite ({'; '.join(broken)}), so there is no result. Its weights are too "
            "large, or trainer.mixed_precision is too coarse for them: try no, or bf16 instead of fp16"
        )
