"""From documents to pieces: token ids that a model can take at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

Ids = np.ndarray[Any, np.dtype[np.int64]]

TOGETHER = 1000
"""Documents tokenised at a time: enough to keep the threads of the tokenizer busy, few enough to need little memory."""


@dataclass(frozen=True)
class Cutter:
    """Tokenises documents and cuts them: every piece has the special tokens of a text, and at most `max_length` tokens.

    Nothing is dropped: a document of n tokens becomes ceil(n / (max_length - special tokens)) pieces.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, documents: Iterable[str]) -> Iterator[list[Ids]]:
        """The pieces of each document, in order; none for a document without a single token."""
        before, after = specials(self.tokenizer)
        room = self.max_length - len(before) - len(after)
        documents = iter(documents)
        while texts := list(islice(documents, TOGETHER)):
            for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
                yield [
                    np.array([*before, *ids[start : start + room], *after], np.int64)
                    for start in range(0, len(ids), room)
                ]


def specials(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text and after it, as [CLS] and [SEP]."""
    text = "a"
    whole, bare = tokenizer(text)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(whole) + 1) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same for tokenizers that make the same of every text, wherever they were loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        facts: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        facts = json.loads(backend.to_str())
        facts |= {"truncation": None, "padding": None}  # how they were last called, and not what they are
    facts = [facts, specials(tokenizer), sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def kind_of_ids(vocabulary: int) -> str:
    """The smallest type, in numpy's words and little-endian, that holds ids below `vocabulary`."""
    return "<u2" if vocabulary <= 1 << 16 else "<u4"


def lengths_of(pieces: Sequence[Ids]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.fromiter(map(len, pieces), np.int64, len(pieces))
