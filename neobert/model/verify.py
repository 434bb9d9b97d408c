"""Whether what was loaded is what the directory promises: weights, vocabulary, lengths.

Hugging Face's loading is lenient. A model that silently starts from random weights, or sees nothing but unknown words,
looks like a bad hyperparameter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.data.examples import Texts

log = logging.getLogger(__name__)

EXPORT_FIRST = "If it is a trial, or a checkpoint of older code, `neobert export source={source}` makes a model of it"

SAMPLE = 200
"""How many training texts are looked at."""


def encoder_of(model: Any) -> tuple[str, nn.Module]:
    """The name and module of the backbone under a classifier: by its own account, otherwise its largest part."""
    named = getattr(model, model.base_model_prefix or "", None)
    if isinstance(named, nn.Module):
        return model.base_model_prefix, named
    return max(model.named_children(), key=lambda child: sum(weight.numel() for weight in child[1].parameters()))


def check_weights(source: str, key: str, model: Any, info: dict[str, Any]) -> None:
    """Every weight of the encoder must have come from the checkpoint, and none of it may be left over; all be finite.

    `key` is the setting that names the model, `info` what `from_pretrained` tells of the loading.
    """
    name, encoder = encoder_of(model)
    # A checkpoint of the bare encoder lacks the encoder's own name.
    first = {name, *(key.partition(".")[0] for key, _ in encoder.named_parameters())}
    faults = {
        "not in the checkpoint": [key for key in info["missing_keys"] if _of_encoder(key, first)],
        "of another shape": [
            f"{key} {tuple(found)} instead of {tuple(expected)}"
            for key, found, expected in info["mismatched_keys"]
            if _of_encoder(key, first)
        ],
        "not in the model": [key for key in info["unexpected_keys"] if _of_encoder(key, first)],
        "not finite": [key for key, weight in model.named_parameters() if not bool(weight.isfinite().all())],
    }
    found = [f"{len(keys)} {what} ({', '.join(sorted(keys)[:3])}, ...)" for what, keys in faults.items() if keys]
    if found:
        raise _problem(key, f"{source!r} does not fit its config.json; weights: {'; '.join(found)}")


def check_trained(source: str, key: str, model: Any) -> None:
    """The encoder's weights must have left the values that they begin with; raises `ConfigError`."""
    if is_untrained(encoder_of(model)[1]):
        raise _problem(key, f"{source!r} holds {UNTRAINED}")


UNTRAINED = (
    "random weights: every norm is as before the first step of a training. Set allow_random_weights: true if that is "
    "wanted"
)


def is_untrained(encoder: nn.Module) -> bool:
    """Whether all norms have the values that they begin with: the first step of a training changes them."""
    norms = [dict(module.named_parameters(recurse=False)) for name, module in encoder.named_modules()
             if _is_norm(name, module)]  # fmt: skip
    scales = [norm["weight"] for norm in norms if "weight" in norm]
    shifts = [norm["bias"] for norm in norms if "bias" in norm]
    return bool(scales) and all(bool((x == 1).all()) for x in scales) and not any(bool(x.any()) for x in shifts)


def _is_norm(name: str, module: nn.Module) -> bool:
    """By its class (`LayerNorm`, `T5LayerNorm`), whatever it is called; or by its name, where a class has another."""
    return "norm" in type(module).__name__.lower() or "norm" in name.lower().rpartition(".")[2]


def _of_encoder(key: str, first: set[str]) -> bool:
    # A pooler is a head by another name: models pretrained on masked words alone come without one.
    parts = key.split(".")
    return parts[0] in first and "pooler" not in parts


def check_dropout(source: str, model: Any, wanted: float) -> None:
    """The head must have the dropout that was asked for: each kind of model has its own name for it, or none."""
    encoder = encoder_of(model)[1]
    inside = {id(module) for module in encoder.modules()}
    found = {module.p for module in model.modules() if isinstance(module, nn.Dropout) and id(module) not in inside}
    if wanted not in (found or {0.0}):
        kind = model.config.model_type
        raise _problem(
            "classifier_dropout", f"cannot be set for {source!r}: the head of {kind} models does not take it"
        )


def check_pooling(source: str, shape: Any) -> None:
    """The head must be one that can look at other tokens than those it looks at by itself."""
    if not hasattr(shape, "classifier_pooling"):
        raise _problem(
            "classifier_pooling", f"cannot be set for {source!r}: the head of {shape.model_type} models has no choice"
        )


def check_vocabulary(source: str, key: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Texts]) -> None:
    """The tokenizer must know words: without its files, Hugging Face makes an empty one.

    Warns when it knows few of those in the training texts.
    """
    encoded = tokenizer(*map(list, zip(*texts[:SAMPLE], strict=True)), verbose=False)["input_ids"]  # cut later on
    special, unknown = set(tokenizer.all_special_ids), tokenizer.unk_token_id
    numbers = [number for ids in encoded for number in ids]
    known = sum(number not in special for number in numbers)
    if not known:
        message = (
            f"{source!r} holds a tokenizer of {len(tokenizer)} entries, which knows no word of the training texts. Are "
            "its files complete (tokenizer.json, or vocab.txt, vocab.json with merges.txt, a sentencepiece model)?"
        )
        raise _problem(key, message)
    share = numbers.count(unknown) / (known + numbers.count(unknown)) if unknown is not None else 0.0
    if share > 0.2:
        log.warning("%.0f %% of the training texts are unknown to the tokenizer of %s", 100 * share, source)


def _problem(key: str, message: str) -> ConfigError:
    return ConfigError.at(("model", key), message)
