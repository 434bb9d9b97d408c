"""`neobert glue`: fine-tunes an encoder on a GLUE task and scores it on the task's dev set."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
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
from neobert.training.caveats import caveats
from neobert.training.distributed import Ranks
from neobert.training.evaluations import test_metrics, write_evaluations, write_predictions
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption
from neobert.training.trimming import trim
from neobert.versions import versions

if TYPE_CHECKING:
    from neobert.training.outcome import Outcome

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
    """Only own files tell which metrics there are, and whether a test set has labels to be scored by."""
    try:
        config.selection(splits.task)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    is_scored = config.do_train or config.do_eval or any(test.labels for test in splits.tests.values())
    if config.trainer.metric_for_best_model is not None and not is_scored:
        raise ConfigError.at(("trainer", "metric_for_best_model"), "needs labels in data.test_file, which has none")


def _head(config: GlueConfig) -> Head | None:
    """Return the output of the trained model where only that names the classes of own files."""
    data = config.data
    if config.do_train or config.task_name or not data.is_own or data.labels or data.problem == "regression":
        return None
    from neobert.model.trained_head import trained_head

    return trained_head(config.model)


def _write_result(outcome: Outcome, config: GlueConfig, splits: Splits, paths: TrialFiles) -> None:
    found = outcome.metrics | test_metrics(outcome)
    result: dict[str, Any] = {
        "schema": 1, "task": "glue", "task_name": config.task_name, **_score(outcome, config, splits),
        "metrics": {name: value for name, value in sorted(found.items()) if math.isfinite(value)},
        "seconds": round(outcome.seconds, 3),
        "step": outcome.step,
        "steps": outcome.steps,
        "versions": versions("deepspeed") if config.deepspeed else versions(),
        **facts.facts(splits),
    }  # fmt: skip
    warnings = caveats(result, outcome, config, splits)
    result |= {"warnings": warnings} if warnings else {}
    write_evaluations(outcome, config, splits, paths)
    write_predictions(outcome.outputs, splits, paths)
    write_json(paths.result, result, durable=True)
    _tell(result, splits, paths)


def _score(outcome: Outcome, config: GlueConfig, splits: Splits) -> dict[str, Any]:
    """The trial's score by its name: of the dev sets, or else the training loss, or else of a test set with labels."""
    task, (metric, _) = splits.task, config.selection(splits.task)
    if config.do_eval:
        return {
            "score": metrics.score(task, metric, outcome.metrics), "metric": task.title(metric),
            **_baseline(metric, splits),
        }  # fmt: skip
    if config.do_train:
        return {"score": outcome.metrics["loss"], "metric": "loss"}
    for test, found in outcome.tests.items():
        title = "+".join(f"{test}_{name}" for name in task.parts(metric))
        return {"score": metrics.score(task, metric, found), "metric": title}
    return {"score": sum(map(len, splits.tests.values())), "metric": "predictions"}


def _baseline(metric: str, splits: Splits) -> dict[str, Any]:
    """What it is comes from the labels of the training set: without them there is none."""
    if not len(splits.train):
        return {}
    dev_labels: dict[str, Sequence[float]] = {suffix: dev.labels for suffix, dev in splits.dev.items()}
    baseline = metrics.baseline(splits.task, metric, splits.train.labels, dev_labels)
    if not math.isfinite(baseline):  # the loss for a class that only the dev set has
        return {}
    return {"baseline": baseline, "baseline_name": metrics.baseline_name(splits.task, metric)}


def _tell(result: Mapping[str, Any], splits: Splits, paths: TrialFiles) -> None:
    than = f" ({result['baseline_name']}: {result['baseline']:.4f})" if "baseline" in result else ""
    log.info("done: %s %.4f%s at step %d of %d, after %.0f s; written to %s", result["metric"], result["score"], than,
             result["step"], result["steps"], result["seconds"], paths.result)  # fmt: skip
    found = {label: result["metrics"].get(f"f1_{label}") for label in splits.task.labels[: facts.SHOWN]}
    each = [f"{label} {value:.4f}" for label, value in found.items() if value is not None]
    if each:
        log.info("F1 of each class: %s", ", ".join(each))
    for warning in result.get("warnings", []):
        log.warning("%s", warning)
