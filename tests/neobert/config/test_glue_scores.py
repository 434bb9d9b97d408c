"""Metrics, weights of classes and lengths that cannot work are refused with the settings, and not in every job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neobert.config import ConfigError, GlueConfig, greater_is_better, validate

MODEL = {"name_or_path": "somewhere"}
OWN = {"train_file": "a.csv", "validation_file": "b.csv"}


def settings(data: dict[str, Any] | None = None, trainer: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "data": {**OWN, **(data or {})}, "trainer": trainer or {}, **more}


def refusal(**sections: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        validate(GlueConfig, settings(**sections))
    return str(refused.value)


@pytest.mark.parametrize(
    ("data", "metric"),
    [
        ({}, "macro_f1"),
        ({}, "balanced_accuracy"),
        ({}, "pearson"),  # the files may hold numbers
        ({}, "loss"),
        ({"labels": ["no", "yes"]}, "f1_yes"),
        ({"problem": "regression"}, "spearmanr"),
        ({"problem": "classification"}, "f1"),
    ],
)
def test_what_may_be_measured_on_own_files_is_taken(data: dict[str, Any], metric: str) -> None:
    config = validate(GlueConfig, settings(data, {"metric_for_best_model": metric}))
    assert config.trainer.metric_for_best_model == metric


@pytest.mark.parametrize(
    ("data", "metric", "message"),
    [
        ({}, "makro_f1", "'makro_f1' is not measured on own files; did you mean 'macro_f1'?"),
        ({}, "accuracy_mm", "'accuracy_mm' is not measured on own files; did you mean 'accuracy'?"),
        ({}, "eval_f1", "'eval_f1' is not measured on own files; did you mean 'f1'?"),
        ({}, "f1_macro", "'f1_macro' is not measured on own files; did you mean 'macro_f1'?"),
        ({}, "mcc", "'mcc' is not measured on own files; did you mean 'matthews_correlation'?"),
        ({}, "f1_yes", "'f1_yes' is the F1 of one class, which can be checked only if data.labels lists the classes"),
        ({"labels": ["no", "yes"]}, "f1_yess", "'f1_yess' is not measured on own files; did you mean 'f1_yes'?"),
        ({"labels": ["no", "yes"]}, "pearson", "'pearson' is not measured on own files"),
        ({"problem": "classification"}, "pearson", "'pearson' is not measured on own files"),
        ({"problem": "regression"}, "f1", "'f1' is not measured on own files; known here: loss, pearson, score, spear"),
    ],
)
def test_what_cannot_be_measured_on_own_files_is_refused_before_they_are_read(
    data: dict[str, Any], metric: str, message: str
) -> None:
    assert refusal(data=data, trainer={"metric_for_best_model": metric}).startswith(
        f"trainer.metric_for_best_model: {message}"
    )


def test_own_files_of_a_task_are_one_dev_set() -> None:
    told = refusal(task_name="mnli", trainer={"metric_for_best_model": "accuracy_mm"})
    assert told == "trainer.metric_for_best_model: 'accuracy_mm' is not measured on mnli; did you mean 'accuracy'?"
    validate(GlueConfig, settings(task_name="mnli", trainer={"metric_for_best_model": "f1_neutral"}))


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"greater_is_better": False}, "trainer.greater_is_better: must be true for score, or left out"),
        (
            {"metric_for_best_model": "loss", "greater_is_better": True},
            "trainer.greater_is_better: must be false for loss, or left out",
        ),
        ({"mixed_precision": "fp16", "use_cpu": True}, "trainer: mixed_precision is fp16, which needs a GPU, and"),
    ],
)
def test_what_no_job_could_do_is_refused_for_own_files_too(trainer: dict[str, Any], message: str) -> None:
    assert refusal(trainer=trainer).startswith(message)


def test_a_metric_may_be_that_of_a_test_file_where_nothing_else_is_scored() -> None:
    alone = {"train_file": None, "validation_file": None, "test_file": "c.csv"}
    trainer = {"metric_for_best_model": "f1"}
    validate(GlueConfig, settings(alone, trainer, do_train=False))
    assert refusal(trainer=trainer, do_eval=False).startswith("trainer.metric_for_best_model needs evaluations")
    trainer = {"early_stopping_patience": 2}
    assert refusal(data=alone, trainer=trainer, do_train=False).startswith("trainer.early_stopping_patience needs")


def test_a_new_model_must_have_positions_for_the_longest_text() -> None:
    new = {"model": {"allow_random_weights": True, "max_position_embeddings": 64}, "data": {**OWN, "max_length": 65}}
    with pytest.raises(ConfigError, match=r"^data.max_length: is 65, but model.max_position_embeddings is 64$"):
        validate(GlueConfig, new)


@pytest.mark.parametrize("sections", [{"task_name": "stsb"}, {"data": {"problem": "regression"}}])
def test_numbers_have_no_weights_of_classes(sections: dict[str, Any]) -> None:
    told = refusal(trainer={"class_weights": "balanced"}, **sections)
    assert told == "trainer.class_weights: a regression has no classes. Leave it out"


def test_trials_that_do_not_weigh_classes_are_those_of_before() -> None:
    before = json.loads(validate(GlueConfig, settings()).model_dump_json())
    assert "class_weights" not in before["trainer"]
    weighed = validate(GlueConfig, settings(trainer={"class_weights": "balanced"}))
    assert weighed.model_dump()["trainer"]["class_weights"] == "balanced"
    assert validate(GlueConfig, json.loads(weighed.model_dump_json())) == weighed


def test_losses_shall_be_small_wherever_they_are_measured() -> None:
    losses = ("loss", "loss_mm", "eval_loss", "test_loss", "perplexity")
    assert not any(map(greater_is_better, losses))
    assert all(map(greater_is_better, ("accuracy", "f1_loss", "test_f1", "macro_f1", "masked_accuracy")))
