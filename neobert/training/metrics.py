"""GLUE's metrics, from scikit-learn and scipy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from neobert.config import ConfigError
from neobert.data.glue_tasks import GlueTask

Array = np.ndarray[Any, np.dtype[Any]]


def _accuracy(labels: Array, predictions: Array) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))


def _matthews(labels: Array, predictions: Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def _pearson(labels: Array, predictions: Array) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def _spearman(labels: Array, predictions: Array) -> float:
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


METRICS: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy, "f1": _f1, "matthews_correlation": _matthews, "pearson": _pearson, "spearmanr": _spearman,
}  # fmt: skip


_PACKAGES = {"f1": "scikit-learn", "matthews_correlation": "scikit-learn", "pearson": "scipy", "spearmanr": "scipy"}
_MODULES = {"scikit-learn": "sklearn", "scipy": "scipy"}


def check_packages(task: GlueTask) -> None:
    """Raises `ConfigError` now, and not at the first evaluation, when a package for the task's metrics is missing."""
    for package in (_PACKAGES[name] for name in task.metrics if name in _PACKAGES):
        if find_spec(_MODULES[package]) is None:
            raise ConfigError(
                f"the package {package} is missing, which the metrics of {task.name} come from: "
                "pip install 'neobert-slurm[eval]' brings it"
            )


def compute(names: Sequence[str], outputs: Array, labels: Array) -> dict[str, float]:
    """The named metrics of a model's outputs: (examples, classes) scores, or (examples, 1) numbers.

    Outputs that are not finite give NaN: the largest of several NaN would be class 0, and a diverged model would look
    as good as the majority class.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(names, math.nan)
    predictions = outputs[:, 0].astype(np.float64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return {name: METRICS[name](labels, predictions) for name in names}


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
