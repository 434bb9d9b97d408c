"""A trained model says how many classes it has, and what they are called, as far as its configuration tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from neobert.config.sections import ModelConfig
from neobert.data.own.labels import Head
from neobert.model.trained_head import head_of, trained_head


@pytest.mark.parametrize(
    ("said", "head"),
    [
        ({"label2id": {"yes": 1, "no": 0}}, Head(2, ("no", "yes"))),
        ({"id2label": {"1": "a", "0": "b", "2": "c"}}, Head(3, ("b", "a", "c"))),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, Head(3)),
        ({}, Head(2)),
        ({"num_labels": 4}, Head(4)),
        ({"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}, Head(1)),
        ({"problem_type": "regression", "id2label": {"0": "LABEL_0"}}, Head(1)),
    ],
)
def test_the_configuration_tells_the_classes(said: dict[str, Any], head: Head) -> None:
    assert head_of("model", "name_or_path", said) == head
    assert head.is_regression == (head.outputs == 1)


def test_names_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model.name_or_path: 'model': label2id .* contradict each other"):
        head_of("model", "name_or_path", {"label2id": {"a": 0, "b": 1}, "id2label": {"0": "b", "1": "a"}})


@pytest.mark.parametrize("settings", [{"name_or_path": "/nowhere"}, {"pretrained_checkpoint_dir": "/nowhere"}])
def test_a_model_that_is_not_there_is_told(settings: dict[str, Any]) -> None:
    key = next(iter(settings))
    with pytest.raises(ConfigError, match=rf"^model.{key}: .*/nowhere"):
        trained_head(ModelConfig(**settings))


def test_the_model_of_a_directory_is_asked(tiny_bert: Path) -> None:
    assert trained_head(ModelConfig(name_or_path=str(tiny_bert))) == Head(2)
