"""Pieces by block, in an order of each epoch that is a pure function of the seed.

Two kinds: shards that `neobert preprocess` has made, and files that are read and tokenised as they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from neobert.data.order import key, permuted
from neobert.data.text.documents import Block, Reader
from neobert.data.text.pieces import Cutter, Ids
from neobert.data.text.shards import Shards

TOGETHER = 256
"""Pieces in a block of mapped shards."""


@dataclass(frozen=True)
class Piece:
    ids: Ids
    key: int
    """Identifies it in its source: the same in every epoch."""


class Source(Protocol):
    """`blocks` is how many there are; `read` gives the pieces of the one at `place` in an epoch's order."""

    @property
    def blocks(self) -> int: ...

    def read(self, seed: int, epoch: int, place: int) -> list[Piece]: ...


class MappedSource:
    """Shards on disk: any piece can be next to any other."""

    def __init__(self, shards: Shards):
        self._shards = shards

    @property
    def blocks(self) -> int:
        return -(-len(self._shards) // TOGETHER)

    def read(self, seed: int, epoch: int, place: int) -> list[Piece]:
        places = np.arange(place * TOGETHER, min((place + 1) * TOGETHER, len(self._shards)))
        numbers = permuted(key(seed, epoch), len(self._shards), places)
        return [Piece(self._shards[number], number) for number in numbers.tolist()]


class StreamedSource:
    """Files, tokenised as they are read: blocks come in a random order, pieces within one as they stand there."""

    def __init__(self, blocks: Sequence[Block], reader: Reader, cutter: Cutter):
        self._blocks = blocks
        self._reader = reader
        self._cutter = cutter

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def read(self, seed: int, epoch: int, place: int) -> list[Piece]:
        (number,) = permuted(key(seed, epoch), len(self._blocks), np.array([place])).tolist()
        documents = self._reader.documents(self._blocks[number])
        pieces = chain.from_iterable(self._cutter(documents))
        return [Piece(ids, key(number, count)) for count, ids in enumerate(pieces)]


class Mixture:
    """Several sources as one endless sequence of blocks, each with its share of them.

    Without weights every block of every source comes once an epoch. With weights, a source that is given more than its
    size is repeated more often than the others: each counts its epochs by itself.
    """

    PERIOD = 1000

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None, seed: int):
        self.sources = sources
        self.seed = seed
        shares = np.asarray(weights or [source.blocks for source in sources], np.float64)
        self.weighted = weights is not None
        # Whose turn it is: the source that is furthest behind its share, over and over.
        counts = np.zeros(len(sources))
        self._turns = np.empty(self.PERIOD if self.weighted else 0, np.int64)
        for place in range(len(self._turns)):
            self._turns[place] = np.argmax(shares / shares.sum() * (place + 1) - counts)
            counts[self._turns[place]] += 1
        self._counts = counts.astype(np.int64)
        self._firsts = np.cumsum([0, *(source.blocks for source in sources)])

    @property
    def blocks(self) -> int:
        """How many blocks all sources have together: an epoch, where there are no weights."""
        return int(self._firsts[-1])

    def read(self, place: int) -> list[Piece]:
        """The pieces of the block at `place` of the endless sequence; their keys tell epochs and sources apart."""
        source, epoch, within = self._find(place)
        pieces = self.sources[source].read(key(self.seed, source), epoch, within)
        return [Piece(piece.ids, key(self.seed, source, epoch, piece.key)) for piece in pieces]

    def _find(self, place: int) -> tuple[int, int, int]:
        """Which source, which of its epochs, and which place in that epoch's order."""
        if not self.weighted:
            epoch, within = divmod(place, self.blocks)
            # The blocks of all sources, shuffled together.
            (within,) = permuted(key(self.seed, epoch, -1), self.blocks, np.array([within])).tolist()
            source = int(np.searchsorted(self._firsts, within, side="right")) - 1
            return source, epoch, within - int(self._firsts[source])
        period, within = divmod(place, self.PERIOD)
        source = int(self._turns[within])
        count = period * int(self._counts[source]) + int((self._turns[:within] == source).sum())
        epoch, within = divmod(count, self.sources[source].blocks)
        return source, epoch, within
