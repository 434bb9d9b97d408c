"""`neobert glue`: fine-tunes an encoder on a GLUE task and scores it on the task's dev set."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neobert.config import ConfigError, GlueConfig
from neobert.data.examples import Needed, Splits
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
    splits = load_splits(config.data, config.task_name, needed)
    _check_selection(config, splits)
    metrics.check_packages(splits.task)
    _announce(splits)

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


def _announce(splits: Splits) -> None:
    sets = (("training", [splits.train]), ("dev", splits.dev.values()), ("test", splits.tests.values()))
    sizes = {name: " + ".join(str(len(part)) for part in parts if len(part)) for name, parts in sets}
    told = " and ".join(f"{size} {name}" for name, size in sizes.items() if size)
    log.info("%s (%s): %s examples", splits.task.name, splits.source, told)
    if splits.source == "own files":  # the only ones that leave room for misunderstandings
        log.info("texts: the columns %s; labels: %s", ", ".join(splits.task.sentences), _labels(splits))
    if splits.source == "generated":
        log.info("this data is synthetic: scores say nothing about GLUE")


def _labels(splits: Splits) -> str:
    """What the labels were taken for: `numbers from 0.5 to 4 (regression)`, or `2 classes (no, yes)`."""
    labels = splits.task.labels
    if not labels:
        numbers = splits.some().labels
        return f"numbers from {min(numbers):g} to {max(numbers):g} (regression)" if numbers else "numbers (regression)"
    return f"{len(labels)} classes ({', '.join(labels[:10])}{', ...' if len(labels) > 10 else ''})"


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
        "data": splits.source,
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
