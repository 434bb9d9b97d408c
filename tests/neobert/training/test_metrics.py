"""Metrics follow their definitions; what predicts nothing scores 0, and what is not a number counts as nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neobert.data.glue_tasks import TASKS
from neobert.training import metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 200)
GUESSES = np.where(RNG.random(200) < 0.7, LABELS, 1 - LABELS)


def outputs(classes: np.ndarray, count: int = 2) -> np.ndarray:
    """What a model that is sure of `classes` gives."""
    return np.eye(count, dtype=np.float32)[classes]


def test_classification_metrics_follow_their_definitions() -> None:
    tp, tn = np.sum((GUESSES == 1) & (LABELS == 1)), np.sum((GUESSES == 0) & (LABELS == 0))
    fp, fn = np.sum((GUESSES == 1) & (LABELS == 0)), np.sum((GUESSES == 0) & (LABELS == 1))
    names = ("accuracy", "f1", "precision", "recall", "matthews_correlation")
    found = metrics.compute(names, outputs(GUESSES), LABELS)
    assert found["precision"] == pytest.approx(tp / (tp + fp), abs=1e-12)
    assert found["recall"] == pytest.approx(tp / (tp + fn), abs=1e-12)
    assert found["accuracy"] == pytest.approx((tp + tn) / 200, abs=1e-12)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    below = math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert found["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / below, abs=1e-12)


def test_correlations_follow_their_definitions() -> None:
    labels = RNG.normal(size=50)
    values = (labels + RNG.normal(size=50)).round(1)
    found = metrics.compute(("pearson", "spearmanr"), values[:, None], labels)
    assert found["pearson"] == pytest.approx(np.corrcoef(labels, values)[0, 1], abs=1e-12)

    def ranks(numbers: np.ndarray) -> np.ndarray:
        return np.array([(np.sum(numbers < n) + np.sum(numbers <= n) + 1) / 2 for n in numbers])

    assert found["spearmanr"] == pytest.approx(np.corrcoef(ranks(labels), ranks(values))[0, 1], abs=1e-12)


def test_a_prediction_of_one_thing_scores_zero_not_nan() -> None:
    one_class = outputs(np.zeros(200, int))
    assert metrics.compute(("matthews_correlation", "f1"), one_class, LABELS) == {"matthews_correlation": 0, "f1": 0}
    constant = np.full((50, 1), 2.5)
    assert metrics.compute(("pearson", "spearmanr"), constant, RNG.normal(size=50)) == {"pearson": 0, "spearmanr": 0}


def test_a_diverged_model_does_not_pass_for_the_first_class() -> None:
    broken = outputs(LABELS)
    broken[3] = np.nan
    assert math.isnan(metrics.compute(("accuracy",), broken, LABELS)["accuracy"])


def test_the_score_is_the_mean_of_all_parts_and_none_is_left_out() -> None:
    assert metrics.score(TASKS["mnli"], {"accuracy": 0.5, "accuracy_mm": 0.75, "loss": 9}) == 0.625
    assert metrics.score(TASKS["stsb"], {"pearson": 0.5, "spearmanr": 0.25}) == 0.375
    with pytest.raises(KeyError):
        metrics.score(TASKS["mrpc"], {"accuracy": 0.5})
    assert math.isnan(metrics.score(TASKS["mrpc"], {"accuracy": 0.5, "f1": math.nan}))


def test_the_baseline_predicts_the_commonest_training_class_on_every_dev_set() -> None:
    assert metrics.baseline(TASKS["rte"], [1, 1, 0], {"": [1, 0, 0, 0]}) == 0.25
    assert metrics.baseline(TASKS["mnli"], [2, 2, 0], {"": [2, 0], "_mm": [2, 2]}) == 0.75
    assert metrics.baseline(TASKS["cola"], [1, 1, 0], {"": [1, 0, 0, 0]}) == 0
    accuracy, f1 = 0.75, 2 * 3 / (2 * 3 + 1)
    assert metrics.baseline(TASKS["mrpc"], [1, 1, 0], {"": [1, 1, 1, 0]}) == pytest.approx((accuracy + f1) / 2)
    assert metrics.baseline(TASKS["stsb"], [1.0, 4.0], {"": [0.0, 3.0]}) == 0


def test_of_several_classes_f1_precision_and_recall_are_means_over_all_of_them() -> None:
    labels = RNG.integers(0, 3, 100)
    guesses = np.where(RNG.random(100) < 0.6, labels, 0)  # never the third class but where it is right
    found = metrics.compute(("f1", "precision", "recall"), outputs(guesses, 4), labels)
    each = []
    for one in range(4):  # of the fourth there is neither a label nor a guess
        tp = np.sum((guesses == one) & (labels == one))
        precision = tp / max(np.sum(guesses == one), 1)
        recall = tp / max(np.sum(labels == one), 1)
        each.append((2 * precision * recall / (precision + recall) if tp else 0.0, precision, recall))
    assert tuple(found.values()) == pytest.approx(tuple(np.mean(each, axis=0)), abs=1e-12)
