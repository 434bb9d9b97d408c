"""Which tokens are to be guessed, and what stands in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from neobert.data.order import mix, uniform
from neobert.data.text.words import Flags, WordMarks, word_marks

IGNORED = -100
Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Masking:
    """Masks each token (or word) with `probability`, as a function of its piece and its place in it.

    Of the chosen tokens 80 % become [MASK], 10 % another token, and 10 % stay (https://arxiv.org/abs/1810.04805); with
    `mask_all` all become [MASK]. Special tokens are never chosen.
    """

    probability: float
    mask_all: bool
    mask_id: int
    special: Flags
    """By token id: special tokens."""
    ordinary: Ids
    """The ids of all other tokens."""
    words: WordMarks | None = None
    """If set, words are chosen as a whole."""

    def __call__(self, ids: Ids, lengths: Sequence[int], keys: Sequence[int]) -> tuple[Ids, Ids]:
        """What the model sees, and what it is to guess (-100 where nothing), both shaped as `ids`, (tokens,).

        `lengths` are those of the pieces in it, and `keys` (64 bits each) identify them in their epoch.
        """
        sizes = np.asarray(lengths)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.arange(len(ids)) - starts
        of_piece = np.repeat(np.asarray(keys, np.uint64), sizes)
        draw = mix(of_piece ^ mix(places.astype(np.uint64)))
        wanted = uniform(draw)
        special = self.special[ids]
        if self.words is not None:
            ends = special | self.words.ends[ids]
            begins = special | self.words.begins[ids] | (places == 0) | np.roll(ends, 1)
            # Every token takes what was drawn for the first one of its word.
            wanted = wanted[np.maximum.accumulate(np.where(begins, np.arange(len(ids)), 0))]
        chosen = (wanted < self.probability) & ~special
        labels = np.where(chosen, ids, IGNORED)
        if self.mask_all:
            return np.where(chosen, self.mask_id, ids), labels
        draw = mix(draw)
        what = uniform(draw)
        others = self.ordinary[(uniform(mix(draw)) * len(self.ordinary)).astype(np.int64)]
        seen = np.where(what < 0.8, self.mask_id, np.where(what < 0.9, others, ids))
        return np.where(chosen, seen, ids), labels


def masking(
    tokenizer: PreTrainedTokenizerBase, probability: float, mask_all: bool = False, whole_words: bool = False
) -> Masking:
    """Mask what this tokenizer makes; raise `ValueError` if it has no [MASK], or does not mark words."""
    if tokenizer.mask_token_id is None:
        raise ValueError("the tokenizer has no mask token, so nothing can be masked")
    special = np.zeros(len(tokenizer), np.bool_)
    special[tokenizer.all_special_ids] = True
    ordinary = np.flatnonzero(~special)
    words = word_marks(tokenizer) if whole_words else None
    return Masking(probability, mask_all, tokenizer.mask_token_id, special, ordinary, words)
