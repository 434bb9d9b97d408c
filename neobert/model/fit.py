"""Checks that a model and a tokenizer go together: entries, lengths, token types, padding.

An embedding that is asked for a row that it does not have ends a training: with an IndexError, or an assertion of CUDA.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from neobert.checkpoint.errors import reason_of
from neobert.config import ConfigError
from neobert.data.examples import Texts

log = logging.getLogger(__name__)

TYPES = "token_type_ids"
_TYPES_ARE_WORDS = ("codegen", "ctrl", "flaubert", "gpt2", "gpt_neo", "gptj", "openai-gpt", "xlm")
"""Kinds of models without token types: they would add the embeddings of the words that have these numbers."""


def check_fit(source: str, model: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, texts: Texts) -> None:
    """Raise `ConfigError` unless the model has a row for whatever the tokenizer makes of texts such as these.

    `source` names the tokenizer.
    """
    _check_entries(source, model, tokenizer)
    limit = min(_limits(model, tokenizer), default=max_length)
    if max_length > limit:
        raise ConfigError.at(("data", "max_length"), f"is {max_length}, but the model takes at most {limit}")
    _check_types(source, model, tokenizer, texts)
    padding = getattr(model.config, "pad_token_id", None)
    if padding is not None and padding != tokenizer.pad_token_id:
        log.warning("the tokenizer of %s pads with the token %d, and pad_token_id of the model is %d, which the "
                    "tokenizer calls %r: the model may take that one for padding", source, tokenizer.pad_token_id,
                    padding, tokenizer.convert_ids_to_tokens(padding))  # fmt: skip


def inputs_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List what of the tokenizer's output the model takes: some have no use for token types, and some only one type."""
    accepted = set(inspect.signature(model.forward).parameters)
    if _has_no_types(model):
        accepted.discard(TYPES)
    return [name for name in tokenizer.model_input_names if name in accepted]


def extremes(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Texts], max_length: int, inputs: Sequence[str]
) -> list[dict[str, Tensor]]:
    """Return the shortest and the longest of the texts, each as a batch of its own."""
    encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, max_length=max_length, verbose=False)
    lengths = list(map(len, encoded["input_ids"]))
    chosen = sorted({lengths.index(min(lengths)), lengths.index(max(lengths))})
    return [{name: torch.tensor([encoded[name][number]]) for name in inputs} for number in chosen]


def try_out(source: str, key: str, model: Any, batches: Sequence[dict[str, Tensor]], training: bool) -> None:
    """Raise `ConfigError`, which names the setting `key`, when the model cannot compute these batches.

    A copy of the model computes them: some change with what they have seen. No random numbers are used up.
    """
    own = copy.deepcopy(model).train(training)
    for batch in batches:
        with torch.no_grad(), _kept_random_numbers():
            try:
                own(**batch)
            except Exception as error:  # noqa: BLE001  # code of many kinds of models, each with errors of its own
                length = batch["input_ids"].shape[1]
                message = f"{source!r} cannot compute a text of {length} tokens: {type(error).__name__}: "
                raise ConfigError.at(("model", key), message + reason_of(error)) from None


@contextmanager
def _kept_random_numbers() -> Iterator[None]:
    """Put all generators back: BigBird draws from numpy's."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def _check_entries(source: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings = getattr(model.config, "vocab_size", None)
    if not embeddings:
        return  # CANINE hashes characters
    entries = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))
    if entries > embeddings:
        message = f"has {entries} entries, but the model only {embeddings} embeddings"
        raise ConfigError.at(("model", "tokenizer"), message)
    if entries < 0.9 * embeddings:
        log.warning("the tokenizer of %s has %d entries, and the model %d embeddings: is the vocabulary complete?",
                    source, entries, embeddings)  # fmt: skip


def _limits(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    for rows, padding in _embeddings(model, "position_embeddings"):
        if padding is not None:  # RoBERTa and its kin number positions from behind that of padding
            limits.append(rows - padding - 1)
    return [limit for limit in limits if limit is not None and limit > 0]  # XLNet's is -1: there is none


def _check_types(source: str, model: Any, tokenizer: PreTrainedTokenizerBase, texts: Texts) -> None:
    if TYPES not in tokenizer.model_input_names:
        return
    highest = max(tokenizer(*texts, verbose=False)[TYPES])
    rows = _rows_of_types(model)
    if _has_no_types(model):
        if highest:
            log.info("the model has no token types, so those of the tokenizer of %s are left out: they cannot tell "
                     "the two texts of a pair apart", source)  # fmt: skip
    elif rows is not None and highest >= rows:
        message = f"{source!r} gives token types up to {highest}, but the model has {rows} (type_vocab_size)"
        raise ConfigError.at(("model", "tokenizer"), message)


def _has_no_types(model: Any) -> bool:
    """Return True where all texts have one and the same type, 0: RoBERTa's own tokenizer gives none."""
    return model.config.model_type in _TYPES_ARE_WORDS or _rows_of_types(model) in (0, 1)


def _rows_of_types(model: Any) -> int | None:
    """Count the token types that have an embedding; return None for models that use them otherwise, or not at all."""
    return next((rows for rows, _ in _embeddings(model, "token_type_embeddings")), None)


def _embeddings(model: Any, name: str) -> Iterator[tuple[int, int | None]]:
    """Yield rows and padding_idx of the embeddings of that name, of whatever class they are."""
    for place, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if place.endswith(name) and isinstance(weight, Tensor):
            yield len(weight), getattr(module, "padding_idx", None)
