"""Rows of tokens for each process, endlessly, and from any point on.

The blocks of the data come in windows. The pieces of a window are shuffled and packed into rows, and the windows are
dealt to `lanes`: window w is in lane w mod `lanes`. Row g of the whole training is the next row of lane g mod `lanes`,
and is for process g mod `processes`. So

- a process reads and tokenises only the windows of its own lanes, and so does each of its workers;
- where the training stands is one number, and for each lane its window and how many rows of it are gone: a `Place`;
- none of this depends on how many workers there are, or how rows are grouped into batches and accumulated; and when the
  number of processes changes, lanes only change hands: no piece is lost, and none is seen twice in an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from neobert.config import ConfigError
from neobert.data.order import key, shuffled
from neobert.data.text.masking import Masking
from neobert.data.text.packing import Lengths
from neobert.data.text.pieces import lengths_of
from neobert.data.text.sources import Mixture, Piece
from neobert.errors import RunError

Arrange = Callable[[Lengths], list[list[int]]]
"""Which pieces of a window, by number, share a row."""


@dataclass(frozen=True)
class Place:
    """Where a training stands in its data."""

    lanes: int
    rows: int = 0
    """How many rows all processes together have seen."""
    windows: dict[int, tuple[int, int]] = field(default_factory=dict)
    """For each lane that has begun: its window, and how many rows of it are gone."""

    def of_lane(self, lane: int) -> tuple[int, int]:
        return self.windows.get(lane, (lane, 0))

    def to_json(self) -> dict[str, Any]:
        return {"lanes": self.lanes, "rows": self.rows, "windows": {str(k): list(v) for k, v in self.windows.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        windows = {int(lane): (int(window), int(row)) for lane, (window, row) in data["windows"].items()}
        return cls(data["lanes"], data["rows"], windows)


@dataclass(frozen=True)
class Row:
    """What the model is to see, (tokens,), what it is to guess, and how long the pieces in it are."""

    ids: np.ndarray[Any, np.dtype[np.int64]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    lengths: list[int]
    lane: int = 0
    window: int = 0
    gone: int = 0
    """How many rows of its window are gone once this one is."""


@dataclass(frozen=True)
class Windows:
    """The rows of any window of the data."""

    mixture: Mixture
    blocks: int
    """How many blocks make a window."""
    arrange: Arrange
    masking: Masking

    def rows(self, window: int, skip: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows of a window from number `skip` on, each with its number."""
        pieces = [piece for i in range(self.blocks) for piece in self.mixture.read(window * self.blocks + i)]
        seed = key(self.mixture.seed, window)
        pieces = [pieces[number] for number in shuffled(seed, len(pieces)).tolist()]
        packed = self.arrange(lengths_of([piece.ids for piece in pieces]))
        for number, row in enumerate(shuffled(seed + 1, len(packed)).tolist()):
            if number >= skip:
                yield number, make_row([pieces[piece] for piece in packed[row]], self.masking)

    @property
    def in_an_epoch(self) -> int:
        """How many windows all blocks make."""
        return -(-self.mixture.blocks // self.blocks)

    def epoch(self, place: Place) -> float:
        """About how many times all blocks have been seen."""
        begun = [place.of_lane(lane)[0] // place.lanes for lane in range(place.lanes)]
        return sum(begun) * self.blocks / max(self.mixture.blocks, 1)


def make_row(pieces: list[Piece], masking: Masking) -> Row:
    ids, lengths = np.concatenate([piece.ids for piece in pieces]), [len(piece.ids) for piece in pieces]
    seen, labels = masking(ids, lengths, [piece.key for piece in pieces])
    return Row(seen, labels, lengths)


class RowStream(IterableDataset[Row | Exception]):
    """The rows of one process, from `place` on, endlessly. Each worker reads lanes of its own.

    What a user is to be told comes in the place of a row: raised in a worker, it would arrive wrapped in a traceback.
    """

    def __init__(self, windows: Windows, place: Place, process: int, processes: int):
        self._windows = windows
        self._place = place
        self._process = process
        self._processes = processes

    def __iter__(self) -> Iterator[Row | Exception]:
        try:
            yield from self._rows()
        except (RunError, ConfigError) as error:
            yield error

    def _rows(self) -> Iterator[Row]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        first = self._place.rows + (self._process - self._place.rows) % self._processes
        open_lanes: dict[int, Iterator[Row]] = {}
        place = first + number * self._processes
        while True:
            lane = place % self._place.lanes
            if lane not in open_lanes:
                open_lanes[lane] = self._lane(lane)
            yield next(open_lanes[lane])
            place += step * self._processes

    def _lane(self, lane: int) -> Iterator[Row]:
        window, gone = self._place.of_lane(lane)
        empty = 0
        while empty <= self._windows.in_an_epoch:
            empty += 1
            for number, row in self._windows.rows(window, gone):
                empty = 0
                yield Row(row.ids, row.labels, row.lengths, lane, window, number + 1)
            window, gone = window + self._place.lanes, 0
        raise RunError("the data holds no text at all")


def workers_that_fit(lanes: int, processes: int, wanted: int) -> int:
    """At most `wanted`, and so many that each worker has lanes of its own."""
    own = lanes // processes
    return max((n for n in range(1, wanted + 1) if own % n == 0), default=0)


def row_loader(
    windows: Windows, place: Place, process: int, processes: int, workers: int
) -> DataLoader[Row | Exception]:
    """Rows, in the same order with any number of workers.

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
    """Batches of `rows` rows, packed or padded, endlessly; `seen` tells where the training stands after a batch."""

    def __init__(self, loader: DataLoader[Row | Exception], rows: int, collate: Callable[[list[Row]], dict[str, Any]]):
        self._loader = loader
        self._rows = rows
        self._collate = collate

    def __iter__(self) -> Iterator[dict[str, Any]]:
        source = iter(self._loader)
        while True:
            rows = [_checked(next(source)) for _ in range(self._rows)]
            yield self._collate(rows) | {"place": {row.lane: (row.window, row.gone) for row in rows}}


def _checked(row: Row | Exception) -> Row:
    if isinstance(row, Exception):
        raise row
    return row


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
