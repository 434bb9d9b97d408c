"""`neobert glue`: fine-tunes an encoder on a GLUE task and scores it on the task's dev set."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neobert.config import ConfigError, GlueConfig
from neobert.data import facts
from neobert.data.examples import Needed, Splits
from neobert.data.own.labels import Head
from neobert.data.sources import load_splits
from neobert.errors import DONE, RUN_AGAIN
from neobert.hub import work_offline_if_unreachable
from neobert.training import metrics
from neobert.training.distributed import Ranks
from neobert.training.evaluations import write_evaluations, write_predictions
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption
from neobert.training.trimming import trim
from neobert.versions import versions

if TYPE_CHECKING:
    from neobert.training.finetune import Outcome

log = logging.getLogger(__name__)


def run(config: GlueConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. The main process leaves the trial's files behind, result.json last."""
    models = (config.model.name_or_path, config.model.tokenizer)
    if config.data.hub or any(name and not Path(name).exists() for name in models):
        work_offline_if_unreachable()
    needed = Needed(train=config.do_train, dev=config.do_eval, tests=config.predicts)
    splits = load_splits(config.data, config.task_name, needed, _head(config))
    _check_selection(config, splits)
    metrics.check_packages(splits.task)
    facts.announce(splits)

    # Imported here, because torch and transformers take seconds: a mistake in the settings or data shows before.
    from neobert.training.finetune import finetune

    outcome = finetune(config, splits, paths, ranks, preemption)
    if outcome is None:
        return RUN_AGAIN
    if ranks.is_main:
        _write_result(outcome, config, splits, paths)
        trim(paths, "glue", config.trainer.keep)
    return DONE


def _check_selection(config: GlueConfig, splits: Splits) -> None:
    """With files of one's own, only they tell which metrics there are; for GLUE's tasks it was checked long before."""
    try:
        config.selection(splits.task)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _head(config: GlueConfig) -> Head | None:
    """Return the output of the trained model where only that names the classes of own files."""
    data = config.data
    if config.do_train or config.task_name or not data.is_own or data.labels or data.problem == "regression":
        return None
    from neobert.model.trained_head import trained_head

    return trained_head(config.model)


def _write_result(outcome: Outcome, config: GlueConfig, splits: Splits, paths: TrialFiles) -> None:
    task = splits.task
    result: dict[str, Any] = {"schema": 1, "task": "glue", "task_name": config.task_name}
    if config.do_eval:
        result |= {"score": metrics.score(task, outcome.metrics), "metric": "+".join(task.scored), **_baseline(splits)}
    elif config.do_train:
        result |= {"score": outcome.metrics["loss"], "metric": "loss"}
    else:
        result |= {"score": sum(map(len, splits.tests.values())), "metric": "predictions"}
    result |= {
        "metrics": {name: value for name, value in sorted(outcome.metrics.items()) if math.isfinite(value)},
        "seconds": round(outcome.seconds, 3),
        "step": outcome.step,
        "steps": outcome.steps,
        "versions": versions("deepspeed") if config.deepspeed else versions(),
        **facts.facts(splits),
    }
    write_evaluations(outcome, config, splits, paths)
    write_predictions(outcome.outputs, splits, paths)
    write_json(paths.result, result, durable=True)
    than = f" ({result['baseline_name']}: {result['baseline']:.4f})" if "baseline" in result else ""
    log.info("done: %s %.4f%s at step %d of %d, after %.0f s; written to %s", result["metric"], result["score"], than,
             outcome.step, outcome.steps, outcome.seconds, paths.result)  # fmt: skip


def _baseline(splits: Splits) -> dict[str, Any]:
    """What it is comes from the labels of the training set: without them there is none."""
    if not len(splits.train):
        return {}
    name = "mean of the training labels" if splits.task.is_regression else "majority class"
    dev_labels: dict[str, Sequence[float]] = {suffix: dev.labels for suffix, dev in splits.dev.items()}
    return {"baseline": metrics.baseline(splits.task, splits.train.labels, dev_labels), "baseline_name": name}
