"""What a trained classifier computes, by its configuration alone: its weights are not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from neobert.checkpoint import UnusableCheckpoint, is_neobert
from neobert.checkpoint.select import key_of
from neobert.checkpoint.shape import said_of
from neobert.config import ConfigError
from neobert.config.sections import ModelConfig
from neobert.data.own.labels import Head
from neobert.model import heads
from neobert.model.loading import explained, selected


def trained_head(config: ModelConfig) -> Head:
    """The classes of the model that the settings name, or the single number; raises `ConfigError` without a model."""
    found, key = selected(config), key_of(config)
    source = str(found.directory if found else config.name_or_path)
    try:
        if found and is_neobert(found):
            said: Mapping[str, Any] = said_of(found)
        else:
            with explained(source, key):
                said, _ = PreTrainedConfig.get_config_dict(source, revision=config.revision)
    except UnusableCheckpoint as error:
        raise ConfigError.at(("model", key), str(error)) from None
    return head_of(source, key, said)


def head_of(source: str, key: str, said: Mapping[str, Any]) -> Head:
    """The same, of a configuration as its file has it: Hugging Face leaves out what is as by default, two classes."""
    if said.get("problem_type") == "regression":
        return Head(1)
    numbers = heads.classes_of(source, key, said)
    names = tuple(sorted(numbers, key=lambda name: numbers[name]))
    if names:
        return Head(len(names), names)
    return Head(len(said.get("id2label") or ()) or int(said.get("num_labels") or 2))
