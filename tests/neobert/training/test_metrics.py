"""Metrics follow their definitions; what predicts nothing scores 0, and what is not a number counts as nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neobert.data.glue_tasks import TASKS, GlueTask
from neobert.training import metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 200)
GUESSES = np.where(RNG.random(200) < 0.7, LABELS, 1 - LABELS)


TWO = GlueTask("two", (), ("no", "yes"), ("accuracy",))
FOUR = GlueTask("four", (), ("a", "b", "c", "d"), ("accuracy",))
NUMBERS = GlueTask("numbers", (), (), ("pearson", "spearmanr"))


def outputs(classes: np.ndarray, count: int = 2) -> np.ndarray:
    """What a model that is sure of `classes` gives."""
    return np.eye(count, dtype=np.float32)[classes]


def test_classification_metrics_follow_their_definitions() -> None:
    tp, tn = np.sum((GUESSES == 1) & (LABELS == 1)), np.sum((GUESSES == 0) & (LABELS == 0))
    fp, fn = np.sum((GUESSES == 1) & (LABELS == 0)), np.sum((GUESSES == 0) & (LABELS == 1))
    found = metrics.compute(TWO, outputs(GUESSES), LABELS)
    assert found["precision"] == pytest.approx(tp / (tp + fp), abs=1e-12)
    assert found["recall"] == pytest.approx(tp / (tp + fn), abs=1e-12)
    assert found["accuracy"] == pytest.approx((tp + tn) / 200, abs=1e-12)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    below = math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert found["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / below, abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2, abs=1e-12)
    f1_of_no = 2 * tn / (2 * tn + fp + fn)
    assert (found["f1_yes"], found["f1_no"]) == (found["f1"], pytest.approx(f1_of_no, abs=1e-12))
    assert found["macro_f1"] == pytest.approx((found["f1"] + f1_of_no) / 2, abs=1e-12)
    assert found["distinct_predictions"] == 2


def test_correlations_follow_their_definitions() -> None:
    labels = RNG.normal(size=50)
    values = (labels + RNG.normal(size=50)).round(1)
    found = metrics.compute(NUMBERS, values[:, None], labels)
    assert found["pearson"] == pytest.approx(np.corrcoef(labels, values)[0, 1], abs=1e-12)

    def ranks(numbers: np.ndarray) -> np.ndarray:
        return np.array([(np.sum(numbers < n) + np.sum(numbers <= n) + 1) / 2 for n in numbers])

    assert found["spearmanr"] == pytest.approx(np.corrcoef(ranks(labels), ranks(values))[0, 1], abs=1e-12)


def test_a_prediction_of_one_thing_scores_zero_not_nan() -> None:
    one_class = metrics.compute(TWO, outputs(np.zeros(200, int)), LABELS)
    assert (one_class["matthews_correlation"], one_class["f1"], one_class["balanced_accuracy"]) == (0, 0, 0.5)
    assert one_class["distinct_predictions"] == 1
    constant = metrics.compute(NUMBERS, np.full((50, 1), 2.5), RNG.normal(size=50))
    assert constant == {"pearson": 0, "spearmanr": 0, "distinct_predictions": 1}


def test_a_diverged_model_does_not_pass_for_the_first_class() -> None:
    broken = outputs(LABELS)
    broken[3] = np.nan
    assert math.isnan(metrics.compute(TWO, broken, LABELS)["accuracy"])


def test_the_score_is_the_mean_of_all_parts_and_none_is_left_out() -> None:
    assert metrics.score(TASKS["mnli"], "score", {"accuracy": 0.5, "accuracy_mm": 0.75, "loss": 9}) == 0.625
    assert metrics.score(TASKS["stsb"], "score", {"pearson": 0.5, "spearmanr": 0.25}) == 0.375
    with pytest.raises(KeyError):
        metrics.score(TASKS["mrpc"], "score", {"accuracy": 0.5})
    assert math.isnan(metrics.score(TASKS["mrpc"], "score", {"accuracy": 0.5, "f1": math.nan}))


def test_a_metric_that_is_named_is_the_score() -> None:
    found = {"accuracy": 0.5, "f1": 0.25, "loss": 9.0}
    assert metrics.score(TASKS["mrpc"], "f1", found) == 0.25
    assert metrics.score(TASKS["mrpc"], "loss", found) == 9.0
    assert [TASKS["mrpc"].title(name) for name in ("score", "f1")] == ["accuracy+f1", "f1"]


def test_the_baseline_predicts_the_commonest_training_class_on_every_dev_set() -> None:
    assert metrics.baseline(TASKS["rte"], "score", [1, 1, 0], {"": [1, 0, 0, 0]}) == 0.25
    assert metrics.baseline(TASKS["mnli"], "score", [2, 2, 0], {"": [2, 0], "_mm": [2, 2]}) == 0.75
    assert metrics.baseline(TASKS["cola"], "score", [1, 1, 0], {"": [1, 0, 0, 0]}) == 0
    accuracy, f1 = 0.75, 2 * 3 / (2 * 3 + 1)
    assert metrics.baseline(TASKS["mrpc"], "score", [1, 1, 0], {"": [1, 1, 1, 0]}) == pytest.approx((accuracy + f1) / 2)
    assert metrics.baseline(TASKS["stsb"], "score", [1.0, 4.0], {"": [0.0, 3.0]}) == 0


def test_of_several_classes_f1_precision_and_recall_are_means_over_all_of_them() -> None:
    labels = RNG.integers(0, 3, 100)
    guesses = np.where(RNG.random(100) < 0.6, labels, 0)  # never the third class but where it is right
    found = metrics.compute(FOUR, outputs(guesses, 4), labels)
    each = []
    for one in range(4):  # of the fourth there is neither a label nor a guess
        tp = np.sum((guesses == one) & (labels == one))
        precision = tp / max(np.sum(guesses == one), 1)
        recall = tp / max(np.sum(labels == one), 1)
        each.append((2 * precision * recall / (precision + recall) if tp else 0.0, precision, recall))
    means = tuple(found[name] for name in ("f1", "precision", "recall"))
    assert means == pytest.approx(tuple(np.mean(each, axis=0)), abs=1e-12)
    assert found["macro_f1"] == found["f1"]
    assert [found[f"f1_{label}"] for label in FOUR.labels] == pytest.approx([f1 for f1, _, _ in each], abs=1e-12)
    recalls = [recall for _, _, recall in each[:3]]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-12), "of classes that occur"


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("f1", 0.0),  # of class 1, which the majority is not
        ("f1_no", 2 * 3 / (2 * 3 + 1)),
        ("f1_yes", 0.0),
        ("macro_f1", 3 / 7),
        ("balanced_accuracy", 0.5),
        ("accuracy", 0.75),
        ("loss", -(3 * math.log(2 / 3) + math.log(1 / 3)) / 4),
    ],
)
def test_the_baseline_is_that_of_the_metric_that_is_the_score(metric: str, expected: float) -> None:
    assert metrics.baseline(TWO, metric, [0, 0, 1], {"": [0, 0, 0, 1]}) == pytest.approx(expected, abs=1e-12)
    names = {"loss": "class frequencies"}
    assert metrics.baseline_name(TWO, metric) == names.get(metric, "majority class")


def test_the_baseline_of_a_loss_is_that_of_the_mean_and_infinite_for_what_the_training_set_lacks() -> None:
    assert metrics.baseline(NUMBERS, "loss", [1.0, 3.0], {"": [2.0, 5.0]}) == pytest.approx(9 / 2)
    assert metrics.baseline_name(NUMBERS, "loss") == "mean of the training labels"
    assert metrics.baseline(FOUR, "loss", [0, 1, 2], {"": [0, 3]}) == math.inf
    assert metrics.baseline(TASKS["mnli"], "accuracy_mm", [2, 2, 0], {"": [2, 0], "_mm": [2, 2]}) == 1.0
