"""What a checkpoint's files say of its model, as our configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neobert.checkpoint.damage import read_mapping, unreadable
from neobert.checkpoint.errors import UnusableCheckpoint, reason_of
from neobert.checkpoint.find import Found
from neobert.config import ConfigError, read_yaml
from neobert.model import NeoBERTConfig

_OTHER_MODELS = {"rope": True, "rms_norm": True, "hidden_act": "swiglu", "ngpt": False}
"""What older code could also train, and this model is not: only these values are."""

_SIZES = ("hidden_size", "num_hidden_layers")
"""Whose defaults are those of the published model, so that the weights must have them where nothing is said."""

_SAME_NAME = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps")


def shape_of(found: Found, weights: Mapping[str, Tensor]) -> NeoBERTConfig:
    """The configuration of `weights`, which have the published names; raises `UnusableCheckpoint`.

    What the weights tell themselves (vocabulary, head) is taken from them.
    """
    said = said_of(found)
    embeddings = weights.get("model.encoder.weight")
    if embeddings is None:
        names = ", ".join(sorted(weights)[:3])
        raise UnusableCheckpoint(f"{found.directory} holds no NeoBERT: no model.encoder.weight among {names}, ...")
    decoder = weights.get("decoder.weight")
    tied = bool(said.get("tie_word_embeddings")) and (decoder is None or torch.equal(decoder, embeddings))
    told: dict[str, Any] = {
        "vocab_size": len(embeddings),
        "tie_word_embeddings": tied,
        "decoder_bias": "decoder.bias" in weights,
    }
    if "classifier.weight" in weights:
        told["num_labels"] = len(weights["classifier.weight"])
        if told["num_labels"] == len(said.get("id2label") or ()):
            del told["num_labels"]  # the classes have names
    try:
        config: NeoBERTConfig = NeoBERTConfig.from_dict({**said, **told})
    except Exception as error:  # noqa: BLE001  # huggingface_hub's own, which wrap ValueError and TypeError
        raise UnusableCheckpoint(f"{found.config}: {reason_of(error)}") from None
    _compare(found.config, {**said, **{name: getattr(config, name) for name in _SIZES}}, weights)
    return config


def said_of(found: Found) -> dict[str, Any]:
    """What the configuration says, in Hugging Face's words; raises `UnusableCheckpoint` unless it is a NeoBERT's.

    Whether it is a Hugging Face model's or a training's, its content tells: either may lie beside bare weights.
    """
    path = found.config
    try:
        settings = read_mapping(path) if path.suffix == ".json" else read_yaml(path).data
    except ConfigError as error:
        raise UnusableCheckpoint(str(error)) from None
    if not isinstance(settings, dict):
        raise unreadable(path, "it is damaged (expected a mapping)")
    return _hugging_face(path, settings) if "model_type" in settings else _of_training(path, settings)


def _hugging_face(path: Path, said: dict[str, Any]) -> dict[str, Any]:
    if said["model_type"] != "neobert":
        raise UnusableCheckpoint(f"{path} describes a {said['model_type']}, and only NeoBERT models are read here")
    _check_kind(path, said)
    return said


def _of_training(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Of the settings that the training had: the model's, with lengths that may stand with the tokenizer's."""
    model = settings.get("model")
    if not isinstance(model, dict):
        raise UnusableCheckpoint(
            f"{path} has neither a model_type, as a Hugging Face model has, nor a section `model`, as the settings of "
            "a training have: nothing in it describes the weights"
        )
    _check_kind(path, model)
    said = {name: model[name] for name in _SAME_NAME if name in model}
    missing = [name for name in _SAME_NAME if name not in said]
    if missing:
        raise UnusableCheckpoint(f"{path}: model.{missing[0]} is missing, and without it the weights mean nothing")
    tokenizer = settings.get("tokenizer") or {}
    length = model.get("max_position_embeddings") or model.get("max_length") or tokenizer.get("max_length")
    if length is None:
        raise UnusableCheckpoint(f"{path}: neither model.max_position_embeddings nor tokenizer.max_length is there")
    said |= {"max_position_embeddings": length, "tie_word_embeddings": bool(model.get("tie_word_embeddings"))}
    for name in ("pad_token_id", "rope_theta", "classifier_dropout"):
        if name in model:
            said[name] = model[name]
    return said


def _check_kind(path: Path, said: Mapping[str, Any]) -> None:
    for name, expected in _OTHER_MODELS.items():
        found = said.get(name, expected)
        if (found.lower() if isinstance(found, str) else found) != expected:
            raise UnusableCheckpoint(f"{path}: {name} is {found!r}; only models with {expected!r} can be built here")


def _compare(path: Path, said: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Says what is wrong with the settings, before a list of weights of other shapes does."""
    blocks = {int(found[1]) for name in weights if (found := re.match(r"model\.transformer_encoder\.(\d+)\.", name))}
    rows, width = weights["model.encoder.weight"].shape
    for name, size in {"vocab_size": rows, "hidden_size": width, "num_hidden_layers": len(blocks)}.items():
        if said.get(name, size) != size:
            raise UnusableCheckpoint(f"{path}: {name} is {said[name]}, but the weights have {size}")
