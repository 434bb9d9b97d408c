"""A model from a checkpoint of any layout, or a message that says why not. Nothing is missing in it, nothing left over.

Hugging Face's loading would warn and go on with random numbers. A model that was saved under the wrong names then
looks like a bad hyperparameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neobert.checkpoint.convert import converted
from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.checkpoint.find import Found
from neobert.checkpoint.read import read
from neobert.checkpoint.shape import shape_of
from neobert.model import (
    NeoBERT,
    NeoBERTConfig,
    NeoBERTForMaskedLM,
    NeoBERTForSequenceClassification,
    NeoBERTForTokenClassification,
)
from neobert.model.verify import UNTRAINED, is_untrained


@dataclass(frozen=True)
class Loaded:
    """A model in float32 and where it came from."""

    model: Any
    found: Found


def load(found: Found, allow_random_weights: bool = False) -> Loaded:
    """The model of a checkpoint.

    Raises `UnusableCheckpoint` unless every weight of the model comes from the checkpoint and every weight of the
    checkpoint goes into the model. Weights that no training has touched are refused as well, but for
    `allow_random_weights`.
    """
    weights = converted(read(found))
    config = shape_of(found, weights)
    kind = _kind(weights, config)
    with torch.random.fork_rng(devices=[]):
        model = kind(config)
    if kind is NeoBERT:
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    if kind is NeoBERTForMaskedLM and config.tie_word_embeddings:
        weights["decoder.weight"] = weights["model.encoder.weight"]  # one matrix, which some layouts save once
    _put(weights, model, found)
    if not allow_random_weights and is_untrained(model):
        raise UnusableCheckpoint(f"{found.directory} holds {UNTRAINED}")
    return Loaded(model.eval(), found)


def _kind(weights: Mapping[str, Tensor], config: NeoBERTConfig) -> Any:
    """The class of the model, by the head among the weights."""
    if "classifier.weight" in weights:
        return NeoBERTForSequenceClassification if "dense.weight" in weights else NeoBERTForTokenClassification
    if "decoder.weight" in weights:
        return NeoBERTForMaskedLM
    alone = (config.architectures or [""])[0] == "NeoBERT" or not config.tie_word_embeddings
    return NeoBERT if alone else NeoBERTForMaskedLM


def _put(weights: Mapping[str, Tensor], model: Any, found: Found) -> None:
    expected = model.state_dict()
    broken = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    faults = {
        "not in the checkpoint": sorted(expected.keys() - weights.keys()),
        "not in the model": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in weights.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
        "not finite": broken,
    }
    said = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if said:
        raise UnusableCheckpoint(f"{found.directory} does not fit {found.config}; weights: {'; '.join(said)}")
    model.load_state_dict(weights, strict=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
