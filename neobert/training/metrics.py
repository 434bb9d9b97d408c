"""Metrics of classifications and regressions, from scikit-learn and scipy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from neobert.config import ConfigError
from neobert.config.extras import install
from neobert.data.glue_tasks import GlueTask

Array = np.ndarray[Any, np.dtype[Any]]


def _accuracy(labels: Array, predictions: Array, classes: int) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: Array, predictions: Array, classes: int) -> float:
    from sklearn.metrics import f1_score

    return _of_classes(f1_score, labels, predictions, classes)


def _precision(labels: Array, predictions: Array, classes: int) -> float:
    from sklearn.metrics import precision_score

    return _of_classes(precision_score, labels, predictions, classes)


def _recall(labels: Array, predictions: Array, classes: int) -> float:
    from sklearn.metrics import recall_score

    return _of_classes(recall_score, labels, predictions, classes)


def _of_classes(function: Callable[..., Any], labels: Array, predictions: Array, classes: int) -> float:
    """Binary: the value of class 1. Multiclass: the macro average, including classes that were never predicted."""
    kind = {"average": "binary"} if classes == 2 else {"average": "macro", "labels": np.arange(classes)}
    return float(function(labels, predictions, zero_division=0, **kind))


def _macro_f1(labels: Array, predictions: Array, classes: int) -> float:
    return float(np.mean(_f1_of_each(labels, predictions, classes)))


def _f1_of_each(labels: Array, predictions: Array, classes: int) -> list[float]:
    from sklearn.metrics import f1_score

    found = f1_score(labels, predictions, zero_division=0, average=None, labels=np.arange(classes))
    return [float(value) for value in found]


def _balanced_accuracy(labels: Array, predictions: Array, classes: int) -> float:
    """The mean recall of the classes that occur among the labels."""
    from sklearn.metrics import recall_score

    return float(recall_score(labels, predictions, zero_division=0, average="macro", labels=np.unique(labels)))


def _matthews(labels: Array, predictions: Array, classes: int) -> float:
    """0 where a side is constant, as scikit-learn has it, but without its warning."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions)) if np.ptp(labels) and np.ptp(predictions) else 0.0


def _pearson(labels: Array, predictions: Array, classes: int) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def _spearman(labels: Array, predictions: Array, classes: int) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable[[Array, Array], Any], labels: Array, predictions: Array) -> float:
    """0 where a side is constant: a correlation does not exist there, and nothing was predicted."""
    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of nearly constant input
        value = float(function(labels, predictions).statistic)
    return value if math.isfinite(value) else 0.0


METRICS: dict[str, Callable[[Array, Array, int], float]] = {
    "accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy, "f1": _f1, "macro_f1": _macro_f1,
    "precision": _precision, "recall": _recall, "matthews_correlation": _matthews, "pearson": _pearson,
    "spearmanr": _spearman,
}  # fmt: skip
"""Each of (labels, predictions, number of classes)."""

DISTINCT = "distinct_predictions"
"""How many different classes, or numbers, were predicted: one tells that the model ignores the text."""


def check_packages(task: GlueTask) -> None:
    """Raises `ConfigError` now, and not at the first evaluation, when the package for the metrics is missing."""
    package, module = ("scipy", "scipy") if task.is_regression else ("scikit-learn", "sklearn")
    if find_spec(module) is None:
        raise ConfigError(
            f"the package {package} is missing, which the metrics of {task.name} come from: {install('eval')}"
        )


def compute(task: GlueTask, outputs: Array, labels: Array) -> dict[str, float]:
    """What is measured of a model's outputs: (examples, classes) scores, or (examples, 1) numbers.

    Outputs that are not finite give NaN: the largest of several NaN would be class 0, and a diverged model would look
    as good as the majority class.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(task.measured, math.nan)
    predictions = predicted(task, outputs)
    count = len(task.labels)
    found = {name: METRICS[name](labels, predictions, count) for name in task.measured if name in METRICS}
    if not task.is_regression:
        found |= {f"f1_{label}": value for label, value in zip(task.labels, _f1_of_each(labels, predictions, count),
                                                                strict=True)}  # fmt: skip
    return found | {DISTINCT: float(len(np.unique(predictions)))}


def predicted(task: GlueTask, outputs: Array) -> Array:
    """The class of each example, or its number."""
    return outputs[:, 0].astype(np.float64) if task.is_regression else outputs.argmax(axis=1)


def score(task: GlueTask, metric: str, found: Mapping[str, float]) -> float:
    """One number of the metrics that were found: `metric`, or the mean of the task's own over all its dev sets.

    A missing one is a KeyError, and never left out of the mean.
    """
    return float(np.mean([found[name] for name in task.parts(metric)]))


# -- without a model ----------------------------------------------------------------------------------------------


def baseline(task: GlueTask, metric: str, train: Sequence[float], dev: Mapping[str, Sequence[float]]) -> float:
    """The score of the trivial predictor, which looks at no text.

    That is the majority class of the training set or the mean of its labels; for the loss, the shares of its classes.
    """
    found: dict[str, float] = {}
    for suffix, labels in dev.items():
        numbers = np.asarray(labels, float if task.is_regression else int)
        on_it = compute(task, _trivial_outputs(task, train, len(labels)), numbers)
        on_it["loss"] = _trivial_loss(task, train, numbers)
        found |= {name + suffix: value for name, value in on_it.items()}
    return score(task, metric, found)


def baseline_name(task: GlueTask, metric: str) -> str:
    if task.is_regression:
        return "mean of the training labels"
    return "class frequencies" if metric.startswith("loss") else "majority class"


def _trivial_outputs(task: GlueTask, train: Sequence[float], count: int) -> Array:
    if task.is_regression:
        return np.full((count, 1), np.mean(train))
    outputs = np.zeros((count, len(task.labels)))
    outputs[:, class_counts(task, train).argmax()] = 1
    return outputs


def _trivial_loss(task: GlueTask, train: Sequence[float], labels: Array) -> float:
    """Infinite where a class occurs that the training set does not have."""
    if task.is_regression:
        return float(np.mean((labels - np.mean(train)) ** 2))
    with np.errstate(divide="ignore"):
        return float(-np.log(class_counts(task, train) / len(train))[labels].mean())


def class_counts(task: GlueTask, labels: Sequence[float]) -> Array:
    return np.bincount(np.asarray(labels, int), minlength=len(task.labels))
