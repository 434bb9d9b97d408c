"""The task table is complete and consistent."""

from __future__ import annotations

import typing

import pytest

from neobert.config.glue import GlueTask as Names
from neobert.data.glue_tasks import TASKS
from neobert.training.metrics import METRICS


def test_it_holds_exactly_the_tasks_that_settings_can_name() -> None:
    assert set(TASKS) == set(typing.get_args(Names))
    assert len(TASKS) == 9


@pytest.mark.parametrize("name", TASKS)
def test_every_row_refers_to_things_that_exist(name: str) -> None:
    task = TASKS[name]
    assert task.tsv is not None
    assert {*task.tsv.sentences, task.tsv.label} <= set(task.tsv.header)
    assert len(task.tsv.sentences) == len(task.sentences)
    assert set(task.metrics) <= set(METRICS)
    assert task.selects in task.reported
    assert not task.codes or len(task.codes) == len(task.labels)
    assert task.is_regression == (task.limits is not None)


def test_the_score_averages_what_the_benchmark_averages() -> None:
    assert {name: "+".join(task.scored) for name, task in TASKS.items()} == {
        "cola": "matthews_correlation", "sst2": "accuracy", "mrpc": "accuracy+f1", "stsb": "pearson+spearmanr",
        "qqp": "accuracy+f1", "mnli": "accuracy+accuracy_mm", "qnli": "accuracy", "rte": "accuracy",
        "wnli": "accuracy",
    }  # fmt: skip


def test_a_submission_holds_every_test_set_of_the_benchmark() -> None:
    assert {test.name: test.rows for task in TASKS.values() for test in task.tests} == {
        "CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "STS-B": 1379, "QQP": 390965, "MNLI-m": 9796, "MNLI-mm": 9847,
        "AX": 1104, "QNLI": 5463, "RTE": 3000, "WNLI": 146,
    }  # fmt: skip


def test_predictions_are_said_as_the_benchmark_takes_them() -> None:
    assert [TASKS[name].said(1) for name in ("cola", "mrpc", "wnli")] == ["1"] * 3
    assert [TASKS[name].said(1) for name in ("rte", "qnli", "mnli")] == ["not_entailment", "not_entailment", "neutral"]
    assert [TASKS["stsb"].said(value) for value in (-0.2, 3.14159, 5.3)] == ["0.000", "3.142", "5.000"]
