"""From documents to pieces: token ids that a model can take at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError

Ids = np.ndarray[Any, np.dtype[np.int64]]

TOGETHER = 1000
"""Documents tokenised at a time: enough to keep the threads of the tokenizer busy, few enough to need little memory."""
CHARACTERS = 1 << 22
"""Documents of more than so many characters together are not tokenised at a time."""
BITE = 1 << 20
"""Longer documents are tokenised in bites of at most so many characters: a token takes a hundred times its memory."""


@dataclass(frozen=True)
class Cutter:
    """Tokenises documents and cuts them: every piece has the special tokens of a text, and at most `max_length` tokens.

    Nothing is dropped: a document of n tokens becomes ceil(n / (max_length - special tokens)) pieces.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, documents: Iterable[str]) -> Iterator[list[Ids]]:
        """The pieces of each document, in order; none for a document without a single token."""
        return (pieces for _, pieces in self.with_texts(documents))

    def with_texts(self, documents: Iterable[str]) -> Iterator[tuple[str, list[Ids]]]:
        """Each document with its pieces."""
        before, after = specials(self.tokenizer)
        room = self.max_length - len(before) - len(after)
        for texts in _batches(documents):
            bites = [list(_bites(text)) for text in texts]
            tokenised = iter(_tokenise(self.tokenizer, [bite for some in bites for bite in some]))
            for text, some in zip(texts, bites, strict=True):
                ids = np.concatenate([np.array(next(tokenised), np.int64) for _ in some])
                starts = range(0, len(ids), room)
                yield text, [np.concatenate([before, ids[start : start + room], after]) for start in starts]


def specials(tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Ids]:
    """What the tokenizer puts before a text and after it, as [CLS] and [SEP]; raises `ConfigError` if no such."""
    whole, bare = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return np.array(whole[:start], np.int64), np.array(whole[start + len(bare) :], np.int64)
    raise ConfigError.at(
        ("tokenizer",), f"makes {bare} of 'a', and {whole} with special tokens: not the same in a frame"
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same for tokenizers that make the same of every text, wherever they were loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        vocabulary = tokenizer.get_vocab()
        facts: Any = [type(tokenizer).__name__, sorted(vocabulary.items()), _probed(tokenizer, vocabulary)]
    else:
        facts = json.loads(backend.to_str())
        facts |= {"truncation": None, "padding": None}  # how they were last called, and not what they are
    facts = [facts, [ids.tolist() for ids in specials(tokenizer)], sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


PROBES = 500
"""Entries of a vocabulary that a tokenizer in Python is asked about: a thousandth of a second each."""


def _probed(tokenizer: PreTrainedTokenizerBase, vocabulary: Iterable[str]) -> list[list[int]]:
    """What a tokenizer in Python, which cannot be written down, makes of entries of its own, written in several ways.

    Its options (lower case or not, accents, Chinese characters) do not show in its vocabulary.
    """
    entries = sorted(vocabulary)
    words = entries[:: -(-len(entries) // PROBES)]
    accented = [f"{word}\u0301" for word in words]
    ways = [words, [word.lower() for word in words], [word.upper() for word in words], accented]
    texts = [*(" ".join(way) for way in ways), "".join(words), OF_ALL_SORTS]
    return [list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]


OF_ALL_SORTS = "Ab aB'c d-e, 1,234.5 \u00e9\u00c9e\u0301 \u4e2d\u6587\u5b57 \u3042\u30a2 \uff21 \t\n  x\u00ad\u200by"


def kind_of_ids(vocabulary: int) -> str:
    """The smallest type, in numpy's words and little-endian, that holds ids below `vocabulary`."""
    return "<u2" if vocabulary <= 1 << 16 else "<u4"


def lengths_of(pieces: Sequence[Ids]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.fromiter(map(len, pieces), np.int64, len(pieces))


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        if batch and (len(batch) == TOGETHER or characters + len(text) > CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _bites(text: str) -> Iterator[str]:
    """The text, cut before white space: so the tokens are the same, unless it has none over the length of a bite."""
    start = 0
    while len(text) - start > BITE:
        space = max(text.rfind(space, start + 1, start + BITE) for space in " \n")
        stop = space if space > start else start + BITE
        yield text[start:stop]
        start = stop
    yield text[start:]


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterable[list[int]]:
    """Token ids of each text, without special tokens and in whole."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    # Half the time of a call to the tokenizer, which also makes masks, and notes where each token stands in its text.
    backend.no_truncation()
    backend.no_padding()
    return (encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False))
