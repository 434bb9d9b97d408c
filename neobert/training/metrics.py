"""GLUE's metrics, from scikit-learn and scipy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
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
    """Of two classes that of class 1; of more, the mean over all of them, those that nobody has predicted too."""
    kind = {"average": "binary"} if classes == 2 else {"average": "macro", "labels": np.arange(classes)}
    return float(function(labels, predictions, zero_division=0, **kind))


def _matthews(labels: Array, predictions: Array, classes: int) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


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
    "accuracy": _accuracy, "f1": _f1, "precision": _precision, "recall": _recall, "matthews_correlation": _matthews,
    "pearson": _pearson, "spearmanr": _spearman,
}  # fmt: skip
"""Each of (labels, predictions, number of classes)."""


def check_packages(task: GlueTask) -> None:
    """Raises `ConfigError` now, and not at the first evaluation, when the package for the metrics is missing."""
    package, module = ("scipy", "scipy") if task.is_regression else ("scikit-learn", "sklearn")
    if find_spec(module) is None:
        raise ConfigError(
            f"the package {package} is missing, which the metrics of {task.name} come from: {install('eval')}"
        )


def compute(names: Sequence[str], outputs: Array, labels: Array) -> dict[str, float]:
    """The named metrics of a model's outputs: (examples, classes) scores, or (examples, 1) numbers.

    Outputs that are not finite give NaN: the largest of several NaN would be class 0, and a diverged model would look
    as good as the majority class.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(names, math.nan)
    predictions = outputs[:, 0].astype(np.float64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return {name: METRICS[name](labels, predictions, outputs.shape[1]) for name in names}


def score(task: GlueTask, metrics: dict[str, float]) -> float:
    """The mean of the task's metrics over all its dev sets; a missing one is a KeyError, never left out."""
    return float(np.mean([metrics[name] for name in task.scored]))


def baseline(task: GlueTask, train_labels: Sequence[float], dev_labels: dict[str, Sequence[float]]) -> float:
    """The score of the trivial predictor: always the commonest class of the training set, or its mean."""
    metrics: dict[str, float] = {}
    for suffix, labels in dev_labels.items():
        if task.is_regression:
            outputs = np.full((len(labels), 1), np.mean(train_labels))
        else:
            outputs = np.zeros((len(labels), len(task.labels)))
            outputs[:, np.bincount(np.asarray(train_labels, int)).argmax()] = 1
        found = compute(task.metrics, outputs, np.asarray(labels))
        metrics |= {name + suffix: value for name, value in found.items()}
    return score(task, metrics)
