"""A result that nobody should trust says so, and one that is good says nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from neobert.config import GlueConfig, validate
from neobert.data.examples import Examples, Splits
from neobert.data.glue_tasks import GlueTask
from neobert.training.caveats import caveats
from neobert.training.outcome import Outcome

TASK = GlueTask("own files", ("text",), ("no", "yes"), ("accuracy",))
NUMBERS = GlueTask("own files", ("text",), (), ("pearson", "spearmanr"))
SPLITS = Splits(TASK, "own files", Examples([("a",)] * 4, [0, 0, 0, 1]), {"": Examples([("a",)] * 3, [0, 1, 0])})
CONFIG = validate(
    GlueConfig, {"model": {"name_or_path": "x"}, "data": {"train_file": "a.csv", "validation_file": "b.csv"}}
)
GOOD = Outcome({"distinct_predictions": 2.0}, 8, 10, 1.0, 2.0, {}, {}, (0.7, 0.5, 0.3), 1)


def result(score: float, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    return {"score": score, "metric": metric, "baseline": 0.75, "baseline_name": "majority class", **more}


def told(found: dict[str, Any], outcome: Outcome = GOOD, splits: Splits = SPLITS, **more: Any) -> list[str]:
    return caveats(found, outcome, CONFIG.model_copy(update=more), splits)


def test_a_good_result_says_nothing() -> None:
    assert told(result(0.76)) == []
    assert told(result(0.4, "loss")) == []
    assert told({"score": 3, "metric": "predictions"}) == []


@pytest.mark.parametrize(("score", "metric"), [(0.75, "accuracy"), (0.2, "f1"), (0.75, "loss"), (2.0, "loss")])
def test_a_score_no_better_than_the_baseline_says_so_in_its_own_direction(score: float, metric: str) -> None:
    (text,) = told(result(score, metric))
    assert text == (f"no better than the majority class: {metric} is {score:.4f}, and 0.7500 without looking at a text")


def test_a_loss_that_has_risen_says_so() -> None:
    (text,) = told(result(0.8), replace(GOOD, losses=(0.71, 12.0, 55.25)))
    assert text.startswith(
        "the training loss has risen: from 0.71 to 55.25, where guessing has 0.6931. A lower optimizer.lr"
    )
    assert told(result(0.8), replace(GOOD, losses=(0.71, 12.0, 1.3))) == [], "it came down again"
    assert told(result(0.8), replace(GOOD, losses=(0.02, 1.3))) == [], "a small batch may be as hard as that"
    assert told(result(0.8), replace(GOOD, losses=(9.0, 17.0))) == [], "it began as badly"


def test_a_regression_is_measured_by_the_spread_of_its_labels() -> None:
    splits = Splits(NUMBERS, "own files", Examples([("a",)] * 2, [0.0, 20.0]), {"": Examples([("a",)] * 2, [1.0, 2.0])})
    assert told(result(0.8), replace(GOOD, losses=(10.0, 190.0)), splits) == []
    assert "where guessing has 100" in told(result(0.8), replace(GOOD, losses=(10.0, 210.0)), splits)[0]


def test_constant_predictions_say_so_where_labels_differ() -> None:
    constant = replace(GOOD, metrics={"distinct_predictions": 1.0})
    assert told(result(0.8), constant) == ["the predictions for the dev set are all the same: one class for 3 examples"]
    assert told(result(0.8), constant, replace(SPLITS, dev={"": Examples([("a",)], [1])})) == []
    labelled = replace(SPLITS, dev={}, tests={"test": Examples([("a",)] * 2, [0, 1])})
    asked = replace(GOOD, metrics={}, tests={"test": {"distinct_predictions": 1.0}})
    assert told({"score": 0.5, "metric": "test_accuracy"}, asked, labelled, do_train=False) == [
        "the predictions for the test set are all the same: one class for 2 examples"
    ]


def test_a_result_of_an_older_version_lacks_the_count_and_says_nothing_of_it() -> None:
    assert told(result(0.8), replace(GOOD, metrics={})) == []


def test_a_training_that_ended_in_its_warm_up_says_how_far_it_came() -> None:
    (text,) = told(result(0.8), replace(GOOD, steps=10, warmup_steps=90))
    assert text == "the training ended in its warm-up: after 10 of 90 steps, at 0.1 of optimizer.lr"
    assert told(result(0.8), replace(GOOD, steps=10, warmup_steps=9)) == []
    assert told(result(0.8), replace(GOOD, steps=0, losses=()), do_train=False) == []


def test_what_is_counted_by_holds_no_number() -> None:
    """The launcher counts trials by what stands before the colon."""
    bad = replace(GOOD, metrics={"distinct_predictions": 1.0}, losses=(1.0, 9.0), steps=3, warmup_steps=9)
    texts = told(result(0.5), bad)
    assert len(texts) == 4
    assert not any(char.isdigit() for text in texts for char in text.partition(": ")[0])
