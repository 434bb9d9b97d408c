"""The output of a trained classifier, by its configuration alone: its weights are not read."""

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
    checkpoint, key = selected(config), key_of(config)
    source = str(checkpoint.directory if checkpoint else config.name_or_path)
    try:
        if checkpoint and is_neobert(checkpoint):
            model: Mapping[str, Any] = said_of(checkpoint)
        else:
            with explained(source, key):
                model, _ = PreTrainedConfig.get_config_dict(source, revision=config.revision)
    except UnusableCheckpoint as error:
        raise ConfigError.at(("model", key), str(error)) from None
    return head_of(source, key, model)


def head_of(source: str, key: str, model: Mapping[str, Any]) -> Head:
    """The same, of a configuration as its file has it: Hugging Face leaves out what is as by default, two classes."""
    if model.get("problem_type") == "regression":
        return Head(1)
    numbers = heads.classes_of(source, key, model)
    names = tuple(sorted(numbers, key=lambda name: numbers[name]))
    if names:
        return Head(len(names), names)
    return Head(len(model.get("id2label") or ()) or int(model.get("num_labels") or 2))
