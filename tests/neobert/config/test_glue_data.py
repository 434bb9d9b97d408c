"""Settings about own files: what goes with what, what is needed for which work, and what they leave as it was."""

from __future__ import annotations

from typing import Any

import pytest

from neobert.config import ConfigError, GlueConfig, validate

MODEL = {"name_or_path": "o/m"}
FILES = {"train_file": "a.csv", "validation_file": "b.csv"}


def settings(data: dict[str, Any], **more: Any) -> GlueConfig:
    return validate(GlueConfig, {"data": data, "model": MODEL, **more})


def refused(data: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(data, **more)
    return str(caught.value)


def test_new_settings_leave_the_identity_of_trials_as_it_was() -> None:
    dumped = settings(FILES).model_dump(mode="json")["data"]
    assert list(dumped) == ["dir", "hub", "train_file", "validation_file", "test_file", "generated", "labels",
                            "max_length", "max_train_samples", "max_eval_samples", "max_predict_samples"]  # fmt: skip
    named = settings({**FILES, "text_columns": ["a"], "problem": "classification"}).model_dump(mode="json")["data"]
    assert (named["text_columns"], named["problem"], "label_column" in named) == (["a"], "classification", False)
    assert validate(GlueConfig, settings(FILES).model_dump(mode="json")) == settings(FILES)


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ({"generated": 9, "text_columns": ["a"]}, {"task_name": "rte"}, "text_columns goes with own files"),
        ({"dir": "glue", "problem": "regression"}, {"task_name": "rte"}, "problem goes with own files"),
        ({"dir": "glue", "labels": ["a", "b"]}, {"task_name": "rte"}, "data.labels is for own files with classes"),
        ({**FILES, "text_columns": ["a", "a"]}, {}, "text_columns, label_column and id_column name 'a' twice"),
        ({**FILES, "text_columns": ["a"], "label_column": "a"}, {}, "name 'a' twice"),
        ({**FILES, "text_columns": ["a", "b", "c"]}, {}, "data.text_columns: expected"),
        ({**FILES, "text_columns": [""]}, {}, "a column without a name holds row numbers"),
        ({**FILES, "id_column": "id"}, {}, "id_column is copied into the predictions for test_file, and there is no"),
        ({**FILES, "problem": "regression", "labels": ["1", "2"]}, {}, "labels are the classes of a classification"),
        ({**FILES, "quotes": "none"}, {}, "quotes is for .tsv files, and none of these files is one"),
        ({**FILES, "problem": "classification"}, {"task_name": "rte"}, "data.problem is for own files without task_na"),
        ({**FILES, "labels": ["a", "b"]}, {"task_name": "rte"}, "data.labels: expected rte's entailment, not_entail"),
        ({**FILES, "labels": ["a", "b"]}, {"task_name": "stsb"}, "data.labels is for own files with classes; stsb"),
        ({**FILES, "text_columns": ["a"]}, {"task_name": "rte"}, "data.text_columns: expected 2 for rte, found 1"),
        ({**FILES, "dir": "glue"}, {}, "expected exactly one of dir, hub, generated, and own files"),
    ],
)
def test_what_does_not_go_together_is_refused(data: dict[str, Any], more: dict[str, Any], message: str) -> None:
    assert message in refused(data, **more)


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ({"validation_file": "b.csv"}, {}, "do_train needs data.train_file (true by default; do_train: false does wi"),
        ({"train_file": "a.csv"}, {}, "do_eval needs data.validation_file (true by default; do_eval: false does wi"),
        ({"test_file": "c.csv"}, {}, "do_train needs data.train_file"),
        (FILES, {"do_predict": True}, "do_predict needs data.test_file"),
        ({"test_file": "c.csv"}, {"do_train": False, "do_eval": True}, "do_eval needs data.validation_file"),
        ({"train_file": "a.csv"}, {"do_train": False}, "do_eval needs data.validation_file"),
    ],
)
def test_a_file_that_the_work_needs_is_asked_for(data: dict[str, Any], more: dict[str, Any], message: str) -> None:
    assert message in refused(data, **more)


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ({"train_file": "a.csv"}, {"do_eval": False}),
        ({"validation_file": "b.csv"}, {"do_train": False}),
        ({"test_file": "c.csv"}, {"do_train": False, "do_eval": False}),
        ({"validation_file": "b.csv", "test_file": "c.csv"}, {"do_train": False}),
        ({"train_file": "a.csv", "test_file": "c.csv"}, {"do_eval": False}),
    ],
)
def test_files_that_the_work_does_not_use_are_not_asked_for(data: dict[str, Any], more: dict[str, Any]) -> None:
    settings(data, **more)


def test_a_test_file_alone_is_predicted_by_a_trained_model_without_evaluation() -> None:
    config = settings({"test_file": "c.csv"}, do_train=False)
    assert (config.do_eval, config.predicts) == (False, True)
    assert validate(GlueConfig, config.model_dump(mode="json")) == config
    assert settings({"test_file": "c.csv", "validation_file": "b.csv"}, do_train=False).do_eval


@pytest.mark.parametrize(
    ("written", "meant"),
    [("CoLA", "cola"), ("SST-2", "sst2"), ("MRPC", "mrpc"), ("STS-B", "stsb"), ("QQP", "qqp"), ("MNLI", "mnli"),
     ("MNLI-mm", "mnli"), ("QNLI", "qnli"), ("RTE", "rte"), ("WNLI", "wnli")],
)  # fmt: skip
def test_glues_own_spelling_of_a_task_is_told_which_is_meant(written: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in refused({"generated": 9}, task_name=written)
