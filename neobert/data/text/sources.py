"""Pieces by block, in an order of each epoch that is a pure function of the seed.

Two kinds: shards that `neobert preprocess` has made, and files that are read and tokenised as they are needed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np

from neobert.data.order import key, permuted
from neobert.data.text.corpus import Corpus
from neobert.data.text.files import is_compressed
from neobert.data.text.pieces import Cutter, Ids
from neobert.data.text.shards import Shards

log = logging.getLogger(__name__)

TOGETHER = 256
"""Pieces in a block of mapped shards; fewer where there is little text."""
WINDOWS = 4
"""At least so many of each lane make an epoch, where there is text enough: few would leave lanes very unequal."""
COMPRESSION = 3
"""About so many bytes of text are in a byte of a compressed file."""
SHORTEST, LONGEST = 1000, 100_000
"""Turns of sources with weights until they begin again."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Piece:
    ids: Ids
    key: int
    """Identifies it in its source: the same in every epoch."""


class Source(Protocol):
    """`blocks` is how many there are; `read` gives the pieces of the one at `place` in an epoch's order.

    `amount` is how much text they hold, in a unit that all sources of a mixture share; `identity` is another for other
    text, as far as can be told without reading all of it; `version` may also be another for the same text.
    """

    identity: str
    version: str

    def for_lanes(self, lanes: int) -> Source:
        """The same, in blocks that so many lanes can share out evenly, where that can be."""

    @property
    def blocks(self) -> int: ...

    @property
    def amount(self) -> float: ...

    def read(self, seed: int, epoch: int, place: int) -> Iterable[Piece]: ...


class MappedSource:
    """Shards on disk: any piece can be next to any other."""

    def __init__(self, shards: Shards, together: int = TOGETHER):
        self._shards = shards
        self._together = together
        self.identity = self.version = f"{len(shards)} pieces of shards {shards.manifest['digest']}"

    def for_lanes(self, lanes: int) -> MappedSource:
        return MappedSource(self._shards, max(1, min(TOGETHER, len(self._shards) // (WINDOWS * lanes))))

    @property
    def blocks(self) -> int:
        return -(-len(self._shards) // self._together)

    @property
    def amount(self) -> float:
        return self._shards.tokens

    def read(self, seed: int, epoch: int, place: int) -> Iterator[Piece]:
        places = np.arange(place * self._together, min((place + 1) * self._together, len(self._shards)))
        numbers = permuted(key(seed, epoch), len(self._shards), places)
        return (Piece(self._shards[number], number) for number in numbers.tolist())


class StreamedSource:
    """Files, tokenised as they are read: blocks come in a random order, pieces within one as they stand there."""

    def __init__(self, corpus: Corpus, cutter: Cutter):
        self._blocks = corpus.blocks
        self._reader = corpus.reader
        self._cutter = cutter
        names, versions = json.dumps(corpus.identity), json.dumps(list(corpus.versions.values()))
        self.identity = f"{len(corpus.files)} files: {hashlib.sha256(names.encode()).hexdigest()[:16]}"
        self.version = hashlib.sha256(versions.encode()).hexdigest()[:16]

    def for_lanes(self, lanes: int) -> StreamedSource:
        if len(self._blocks) < lanes:
            log.warning(
                "the text has %d parts that can be read by themselves, for %d lanes: some processes will have none and "
                "wait. More files, or shards of `neobert preprocess`, can be shared out", len(self._blocks), lanes,
            )  # fmt: skip
        return self

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    @property
    def amount(self) -> float:
        return sum(block.size * (COMPRESSION if is_compressed(block.path) else 1) for block in self._blocks)

    def read(self, seed: int, epoch: int, place: int) -> Iterator[Piece]:
        (number,) = permuted(key(seed, epoch), len(self._blocks), np.array([place])).tolist()
        documents = self._reader.documents(self._blocks[number])
        pieces = chain.from_iterable(self._cutter(documents))
        return (Piece(ids, key(number, count)) for count, ids in enumerate(pieces))


class Mixture:
    """Several sources as one endless sequence of blocks, each with its share of them.

    Without weights every block of every source comes once an epoch. With weights each source has that share of the
    text, and one that is given more than its size is repeated more often than the others: each counts its epochs by
    itself.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None, seed: int):
        self.sources = sources
        self.seed = seed
        self.weighted = weights is not None
        self._turns: Numbers = np.zeros(0, np.int64)
        self._counts: Numbers = np.zeros(0, np.int64)
        if weights is not None:
            self._turns, self._counts = _turns(sources, weights)
        self._firsts = np.cumsum([0, *(source.blocks for source in sources)])

    @property
    def blocks(self) -> int:
        """How many blocks all sources have together: an epoch, where there are no weights."""
        return int(self._firsts[-1])

    def read(self, place: int) -> Iterator[Piece]:
        """The pieces of the block at `place` of the endless sequence; their keys tell epochs and sources apart."""
        source, epoch, within = self._find(place)
        pieces = self.sources[source].read(key(self.seed, source), epoch, within)
        return (Piece(piece.ids, key(self.seed, source, epoch, piece.key)) for piece in pieces)

    def _find(self, place: int) -> tuple[int, int, int]:
        """Which source, which of its epochs, and which place in that epoch's order."""
        if not self.weighted:
            epoch, within = divmod(place, self.blocks)
            # The blocks of all sources, shuffled together.
            (within,) = permuted(key(self.seed, epoch, -1), self.blocks, np.array([within])).tolist()
            source = int(np.searchsorted(self._firsts, within, side="right")) - 1
            return source, epoch, within - int(self._firsts[source])
        period, within = divmod(place, len(self._turns))
        source = int(self._turns[within])
        count = period * int(self._counts[source]) + int((self._turns[:within] == source).sum())
        epoch, within = divmod(count, self.sources[source].blocks)
        return source, epoch, within


def _turns(sources: Sequence[Source], weights: Sequence[float]) -> tuple[Numbers, Numbers]:
    """Whose turn it is, over and over: the source that is furthest behind its share; and how many turns each has.

    Blocks of one source may hold a thousand times as much as those of another, so turns are shares of the text by the
    size of its blocks.
    """
    sizes = np.array([source.amount / source.blocks for source in sources])
    shares = np.asarray(weights, np.float64) / sizes
    shares /= shares.sum()
    turns = np.empty(min(LONGEST, max(SHORTEST, round(2 / shares.min()))), np.int64)
    counts = np.zeros(len(sources))
    for place in range(len(turns)):
        turns[place] = np.argmax(shares * (place + 1) - counts)
        counts[turns[place]] += 1
    if not counts.all():
        raise ValueError(f"a weight is too small: one of {LONGEST} blocks would be more than its share")
    return turns, counts.astype(np.int64)
