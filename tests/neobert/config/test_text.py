"""Settings of text are checked before anything is read, and can be read again once they are written out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neobert.config import TASKS, ConfigError, PreprocessConfig, validate
from neobert.config.text import TrainingText

FILES = {"data": {"files": ["a.txt"]}, "tokenizer": {"train_vocab_size": 100}, "output": "out"}
HUB = {**FILES, "data": {"hub": "o/n", "hub_config": "en", "revision": "v1", "split": "test"}}


@pytest.mark.parametrize(
    "settings", [FILES, HUB, {**FILES, "step": "part", "part": 2, "parts": 3}, {**FILES, "step": "merge", "parts": 3}]
)
def test_settings_that_were_written_out_are_read_again(settings: dict[str, Any]) -> None:
    config = validate(PreprocessConfig, settings)
    assert validate(PreprocessConfig, json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize("text", [{"path": "shards"}, {"files": ["a.txt"], "weight": 2.0}, {"hub": "o/n"}])
def test_a_source_of_a_training_is_read_again_too(text: dict[str, Any]) -> None:
    source = validate(TrainingText, text)
    assert validate(TrainingText, json.loads(source.model_dump_json())) == source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {}}, "data: expected exactly one of files, hub, generated; found none"),
        (
            {"data": {"files": ["a"], "hub": "o/n"}},
            "data: expected exactly one of files, hub, generated; found files and hub",
        ),
        ({"data": {"files": []}}, "data.files: "),
        ({"data": {"files": ["a"], "split": "test"}}, "data: hub_config, revision and split go with hub"),
        ({"data": {"files": ["a"], "revision": "v1"}}, "data: hub_config, revision and split go with hub"),
        ({"data": {"file": ["a"]}}, "data.file: unknown key; did you mean 'files'?"),
        ({"tokenizer": {}}, "tokenizer: expected either name_or_path or train_vocab_size"),
        ({"tokenizer": {"name_or_path": "a", "train_vocab_size": 99}}, "tokenizer: expected either name_or_path or"),
        ({"tokenizer": {"name_or_path": "a"}, "step": "tokenizer"}, "step: tokenizer learns one"),
        ({"step": "part"}, "part goes with step: part, and only with it"),
        ({"part": 0}, "part goes with step: part, and only with it"),
        ({"step": "part", "part": 3, "parts": 3}, "part 3 is none of 3 parts, which are numbered from 0"),
        ({"validation_fraction": 1.0}, "validation_fraction: expected less than 1"),
        ({"shard_bytes": 0}, "shard_bytes: expected greater than 0"),
        ({"output": ""}, "output: "),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(PreprocessConfig, FILES | change)
    assert message in str(caught.value)


def test_shards_are_not_read_again() -> None:
    for more in ({"text_column": "content"}, {"whole_files": True}):
        with pytest.raises(
            ConfigError, match=r"text_column and whole_files go with files and hub; shards \(path\) hold"
        ):
            validate(TrainingText, {"path": "shards", **more})


def test_the_task_is_known() -> None:
    assert TASKS["preprocess"] is PreprocessConfig
