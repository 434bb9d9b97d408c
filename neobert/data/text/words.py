"""Where words begin in a row of tokens, as the tokenizer's model and pre-tokenizer mark it.

The entries of a vocabulary do not tell that. A WordPiece vocabulary holds whatever characters its texts had, and among
them may be those by which other tokenizers mark words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class WordMarks:
    """Flags by token id: the token begins a word; a word begins after it."""

    begins: Flags
    ends: Flags


@dataclass(frozen=True)
class _Rule:
    """A way to mark words by the start or the end of tokens: one of these is set."""

    continuing_prefix: str = ""
    beginning_prefixes: tuple[str, ...] = ()
    continuing_suffix: str = ""
    ending_suffix: str = ""

    def marks(self, tokens: Sequence[str]) -> WordMarks:
        begins, ends = np.zeros((2, len(tokens)), np.bool_)
        if self.continuing_prefix:
            begins = np.array([not token.startswith(self.continuing_prefix) for token in tokens])
        elif self.beginning_prefixes:
            begins = np.array([token.startswith(self.beginning_prefixes) for token in tokens])
        elif self.continuing_suffix:
            ends = np.array([not token.endswith(self.continuing_suffix) for token in tokens])
        else:
            ends = np.array([token.endswith(self.ending_suffix) for token in tokens])
        return WordMarks(begins, ends)


def word_marks(tokenizer: PreTrainedTokenizerBase) -> WordMarks:
    """Return the marks of each token; raise `ValueError` for a tokenizer that does not mark words."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rule = _rule_of_joining(tokenizer) if backend is None else _rule_of_backend(backend)
    marks = rule.marks(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))) if rule else None
    if marks is None or not (marks.begins | marks.ends).any():
        raise ValueError("the tokenizer does not mark where words begin, so they cannot be masked as a whole")
    return marks


def _rule_of_backend(backend: Tokenizer) -> _Rule | None:
    """The rule of the model (WordPiece, BPE), else that of what stands for white space (byte-level, sentencepiece)."""
    suffix = getattr(backend.model, "end_of_word_suffix", None)
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    if suffix:
        return _Rule(ending_suffix=suffix)
    if prefix:
        return _Rule(continuing_prefix=prefix)
    spaces = tuple(_spaces(backend))
    return _Rule(beginning_prefixes=spaces) if spaces else None


def _spaces(backend: Tokenizer) -> Iterator[str]:
    return (mark for space in " \n\t\r" if (mark := _written(backend, space)))


def _written(backend: Tokenizer, space: str) -> str:
    """Return what normalizer and pre-tokenizer put in the place of white space between two letters."""
    text = f"a{space}b"
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is not None:
        text = "".join(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    return text.partition("a")[2].rpartition("b")[0]


def space_mark(backend: Tokenizer) -> str:
    """Return what stands for a space within tokens: `Ġ` where they are bytes, `▁` for sentencepiece, else a space."""
    return _written(backend, " ") or " "


_RULES = (
    (_Rule(continuing_prefix="##"), ("x", "##y"), ("x", "y")),  # BERT
    (_Rule(beginning_prefixes=("▁",)), ("▁x", "y"), ("▁x", "▁y")),  # sentencepiece
    (_Rule(continuing_suffix="@@"), ("x@@", "y"), ("x", "y")),  # PhoBERT, BERTweet
    (_Rule(ending_suffix="</w>"), ("x", "y</w>"), ("x</w>", "y</w>")),  # XLM, FlauBERT
)
"""Rules, each with the tokens of one word and of two."""


def _rule_of_joining(tokenizer: PreTrainedTokenizerBase) -> _Rule | None:
    """The rule by which a tokenizer in Python, which has no parts to ask, makes text of tokens."""
    join = tokenizer.convert_tokens_to_string
    for rule, one, two in _RULES:
        if join(list(one)).strip() == "xy" and join(list(two)).strip() == "x y":
            return rule
    return None
