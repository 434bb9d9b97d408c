"""Rows of tokens for each process, epoch by epoch, and from any point on.

The blocks of an epoch are cut into windows. The pieces of a window are shuffled and packed into rows, and the windows
are dealt to `lanes`: window w is in lane w mod `lanes`, and each lane has as many in an epoch as the next. The lanes
are dealt to processes: lane l is for process l mod `processes`. Each process takes rows from its lanes in turn; a lane
whose epoch is over waits for the others, of other processes too. So

- in an epoch every piece is seen once, whoever reads it; only its last steps may be smaller;
- a process reads and tokenises only the windows of its own lanes, and so does each of its workers;
- where the training stands is, for each lane, its window and how many rows of it are gone: a `Place`;
- none of this depends on how many workers there are, or how rows are grouped into batches and accumulated; and when the
  number of processes changes, lanes only change hands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from neobert.config import ConfigError
from neobert.data.order import key, shuffled
from neobert.data.text.masking import IGNORED, Masking
from neobert.data.text.packing import Lengths
from neobert.data.text.pieces import lengths_of
from neobert.data.text.sources import Mixture, Piece
from neobert.errors import RunError

Arrange = Callable[[Lengths], list[list[int]]]
"""Which pieces of a window, by number, share a row."""


class Reached(NamedTuple):
    """Where a lane is: its window, how many rows of it are gone, and how many the lane has given in this epoch."""

    window: int
    gone: int = 0
    turn: int = 0


START = Reached(0)


@dataclass(frozen=True)
class Place:
    """Where a training stands in its data."""

    lanes: int
    reached: dict[int, Reached] = field(default_factory=dict)
    """For each lane that has begun."""

    def of_lane(self, lane: int) -> Reached:
        return self.reached.get(lane, Reached(lane))

    def to_json(self) -> dict[str, Any]:
        return {"lanes": self.lanes, "reached": {str(lane): list(where) for lane, where in self.reached.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        return cls(data["lanes"], {int(lane): Reached(*where) for lane, where in data["reached"].items()})


@dataclass(frozen=True)
class Row:
    """What the model is to see, (tokens,), what it is to guess, and how long the pieces in it are."""

    ids: np.ndarray[Any, np.dtype[np.int64]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    lengths: list[int]
    lane: int = 0
    reached: Reached = START
    """Where its lane is once this row is gone."""


class NoText(RunError):
    """All data was read, and there was not a row in it."""


@dataclass(frozen=True)
class LaneEnd:
    """In the place of a row: the lane has no more of them in this epoch."""

    lane: int


@dataclass(frozen=True)
class Windows:
    """The rows of any window of the data."""

    mixture: Mixture
    lanes: int
    blocks: int
    """About how many blocks make a window."""
    together: int
    """At most so many pieces are shuffled and packed together: a single block of a stream may hold far more."""
    arrange: Arrange
    masking: Masking

    def rows(self, window: int, skip: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows of a window from number `skip` on, each with its number."""
        pieces = chain.from_iterable(map(self.mixture.read, self._blocks_of(window)))
        number = 0
        for part, some in enumerate(iter(lambda: list(islice(pieces, self.together)), [])):
            seed = key(self.mixture.seed, window, part)
            mixed = [some[place] for place in shuffled(seed, len(some)).tolist()]
            packed = self.arrange(lengths_of([piece.ids for piece in mixed]))
            for row in shuffled(seed + 1, len(packed)).tolist():
                if number >= skip:
                    yield number, make_row([mixed[piece] for piece in packed[row]], self.masking)
                number += 1

    def _blocks_of(self, window: int) -> range:
        """Places in the mixture's endless sequence; no window reaches from one epoch into the next."""
        if self.mixture.weighted:
            return range(window * self.blocks, (window + 1) * self.blocks)
        epoch, number = divmod(window, self.in_an_epoch)
        whole, parts = self.mixture.blocks, self.in_an_epoch
        return range(epoch * whole + number * whole // parts, epoch * whole + (number + 1) * whole // parts)

    @property
    def in_an_epoch(self) -> int:
        """How many windows all blocks make: as many for each lane."""
        return self.lanes * max(1, round(self.mixture.blocks / (self.lanes * self.blocks)))

    def epoch_of(self, window: int) -> int:
        """Sources with weights have no epoch in common: theirs never ends."""
        return 0 if self.mixture.weighted else window // self.in_an_epoch

    def epoch(self, place: Place) -> float:
        """About how many times all blocks have been seen. A lane that has no text never begins, and does not count."""
        begun = [where.window // self.lanes for where in place.reached.values()]
        return sum(begun) / max(len(begun), 1) * self.lanes / self.in_an_epoch

    @property
    def idle(self) -> Row:
        """What a process computes that has no rows left while others have: nothing is to be guessed in it."""
        return Row(np.full(2, self.masking.mask_id), np.full(2, IGNORED), [2])


def make_row(pieces: list[Piece], masking: Masking) -> Row:
    ids, lengths = np.concatenate([piece.ids for piece in pieces]), [len(piece.ids) for piece in pieces]
    seen, labels = masking(ids, lengths, [piece.key for piece in pieces])
    return Row(seen, labels, lengths)


class RowStream(IterableDataset[Row | LaneEnd | Exception]):
    """What the lanes of one process give, from `place` on, in turn and endlessly. Each worker reads lanes of its own.

    What a user is to be told comes in the place of a row: raised in a worker, it would arrive wrapped in a traceback.
    """

    def __init__(self, windows: Windows, place: Place, process: int, processes: int):
        self._windows = windows
        self._place = place
        self._lanes = range(process, place.lanes, processes)

    def __iter__(self) -> Iterator[Row | LaneEnd | Exception]:
        try:
            yield from self._rows()
        except (RunError, ConfigError) as error:
            yield error

    def _rows(self) -> Iterator[Row | LaneEnd]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        lanes = [self._lane(lane) for lane in self._lanes[number::step]]
        while True:
            yield from map(next, lanes)

    def _lane(self, lane: int) -> Iterator[Row | LaneEnd]:
        windows = self._windows
        window, gone, turn = self._place.of_lane(lane)
        empty = 0
        while empty <= windows.in_an_epoch:
            empty += 1
            for number, row in windows.rows(window, gone):
                empty, turn = 0, turn + 1
                yield replace(row, lane=lane, reached=Reached(window, number + 1, turn))
            following = window + windows.lanes
            if windows.epoch_of(following) != windows.epoch_of(window):
                yield LaneEnd(lane)
                empty, turn = 0, 0
            window, gone = following, 0
        raise NoText


class Turns:
    """The rows of one process in their order, however many workers have read them.

    The next one is of the lane that has given the fewest in this epoch, or of the first such.
    """

    def __init__(self, items: Iterable[Row | LaneEnd | Exception], windows: Windows, place: Place, lanes: range):
        self._items = iter(items)
        self._windows = windows
        self._waiting: dict[int, deque[Row | LaneEnd]] = {lane: deque() for lane in lanes}
        self._reached = {lane: place.of_lane(lane) for lane in lanes}
        # Of all lanes, also those of other processes: they too must have ended.
        epochs = [windows.epoch_of(place.of_lane(lane).window) for lane in range(place.lanes)]
        self._epoch = min(epochs)
        self.behind = max(epochs) - self._epoch
        """How many epochs may have no rows any more: a lane that never has any stays in the first, wherever the others
        are by now."""
        self._open: list[int] = []
        self._begin()

    def _begin(self) -> None:
        self._open = [
            lane for lane, where in self._reached.items() if self._windows.epoch_of(where.window) <= self._epoch
        ]

    def next_epoch(self) -> None:
        """All lanes of all processes have ended."""
        self._epoch += 1
        self.behind = max(self.behind - 1, 0)
        self._begin()

    def next(self) -> Row | None:
        """None when all lanes of this process have ended their epoch."""
        while self._open:
            lane = min(self._open, key=lambda lane: (self._turn(lane), lane))
            item = self._of(lane)
            if isinstance(item, Row):
                self._reached[lane] = item.reached
                return item
            self._open.remove(lane)
        return None

    def _turn(self, lane: int) -> int:
        where = self._reached[lane]
        return where.turn if self._windows.epoch_of(where.window) == self._epoch else 0

    def _of(self, lane: int) -> Row | LaneEnd:
        while not self._waiting[lane]:
            item = next(self._items)
            if isinstance(item, Exception):
                raise item
            self._waiting[item.lane].append(item)
        return self._waiting[lane].popleft()


def workers_that_fit(lanes: int, processes: int, wanted: int) -> int:
    """At most `wanted`, and so many that each worker has lanes of its own."""
    own = lanes // processes
    return max((n for n in range(1, wanted + 1) if own % n == 0), default=0)


def row_loader(
    windows: Windows, place: Place, process: int, processes: int, workers: int
) -> DataLoader[Row | LaneEnd | Exception]:
    """What the lanes of a process give.

    Raises `ValueError` where lanes cannot be shared out evenly among processes.
    """
    if place.lanes % processes:
        raise ValueError(f"{place.lanes} lanes cannot be shared out among {processes} processes")
    workers = workers_that_fit(place.lanes, processes, workers)
    return DataLoader(
        RowStream(windows, place, process, processes),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        # "fork" would hand down the threads' locks of tokenizers and of torch; a forked tokenizer may hang.
        multiprocessing_context="forkserver" if workers else None,
        persistent_workers=bool(workers),
    )


class Batches:
    """Batches of at most `rows` rows, packed or padded, endlessly.

    In each, `place` tells where the lanes of its rows are then, and `rows` how many it has: fewer at the end of an
    epoch, and 0 when this process has none left until `next_epoch`.
    """

    def __init__(
        self, windows: Windows, place: Place, process: int, processes: int, workers: int, rows: int,
        collate: Callable[[list[Row]], dict[str, Any]],
    ):  # fmt: skip
        loader = row_loader(windows, place, process, processes, workers)
        self._turns = Turns(loader, windows, place, range(process, place.lanes, processes))
        self._rows = rows
        self._idle = windows.idle
        self._collate = collate

    @property
    def behind(self) -> int:
        """The same in all processes: so many epochs may be without rows, and have to be passed over."""
        return self._turns.behind

    def next_epoch(self) -> None:
        self._turns.next_epoch()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            rows: list[Row] = []
            while len(rows) < self._rows and (row := self._turns.next()) is not None:
                rows.append(row)
            place = {row.lane: row.reached for row in rows}
            yield self._collate(rows or [self._idle]) | {"place": place, "rows": len(rows)}


def packed_batch(rows: list[Row]) -> dict[str, Any]:
    """(1, tokens) with `cu_seqlens`: what the model takes packed, shortest pieces first."""
    lengths = [length for row in rows for length in row.lengths]
    ids, labels = (np.concatenate([getattr(row, name) for row in rows]) for name in ("ids", "labels"))
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths)
    places = np.concatenate([np.arange(ends[piece] - lengths[piece], ends[piece]) for piece in order])
    lengths = [lengths[piece] for piece in order]
    return {
        "input_ids": torch.from_numpy(ids[places])[None],
        "labels": torch.from_numpy(labels[places])[None],
        "cu_seqlens": torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        "lengths": lengths,
        "max_seqlen": lengths[-1],
    }


@dataclass(frozen=True)
class PaddedBatch:
    """(pieces, longest), with `attention_mask`: each piece in a row of its own, up to a multiple of so many tokens."""

    pad_id: int
    multiple: int = 1

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([length for row in rows for length in row.lengths])
        width = -(-int(lengths.max()) // self.multiple) * self.multiple
        mask = torch.arange(width) < lengths[:, None]
        batch = {"attention_mask": mask.long()}
        for name, field_name, filler in (("input_ids", "ids", self.pad_id), ("labels", "labels", -100)):
            padded = torch.full(mask.shape, filler, dtype=torch.int64)
            padded[mask] = torch.from_numpy(np.concatenate([getattr(row, field_name) for row in rows]))
            batch[name] = padded
        return batch
