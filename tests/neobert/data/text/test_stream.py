"""The same rows in the same order, whoever reads them, and from wherever."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pytest

from neobert.data.order import key
from neobert.data.text.masking import Masking
from neobert.data.text.packing import pack
from neobert.data.text.sources import Mixture, Piece
from neobert.data.text.stream import Batches, PaddedBatch, Place, Row, Windows, packed_batch, row_loader
from neobert.errors import RunError

CAPACITY = 32
VOCABULARY = 10_000


@dataclass
class Numbered:
    """Pieces of which each token tells the piece: number n of source s is all 100 s + n."""

    source: int
    sizes: list[int]
    """How many pieces are in each block."""

    @property
    def blocks(self) -> int:
        return len(self.sizes)

    def read(self, seed: int, epoch: int, place: int) -> list[Piece]:
        first = sum(self.sizes[:place])
        numbers = range(first, first + self.sizes[place])
        return [Piece(np.full(n % 9 + 2, 1000 * self.source + n + 1), n) for n in numbers]


MASKING = Masking(0.3, True, 0, np.zeros(VOCABULARY, bool), np.arange(1, VOCABULARY))


def windows(blocks: int = 2, seed: int = 5) -> Windows:
    mixture = Mixture([Numbered(0, [5, 7, 3, 6] * 6), Numbered(1, [4, 4] * 8)], None, seed)
    return Windows(mixture, blocks, partial(pack, capacity=CAPACITY), MASKING)


def rows(place: Place, process: int = 0, processes: int = 1, workers: int = 0, count: int = 60) -> list[Row]:
    found = list(islice(row_loader(windows(), place, process, processes, workers), count))
    assert all(isinstance(row, Row) for row in found)
    return found


def texts(found: list[Row]) -> list[tuple[list[int], list[int]]]:
    return [(row.ids.tolist(), row.labels.tolist()) for row in found]


def after(place: Place, found: list[Row], processes: int = 1) -> Place:
    """Where a training stands that has seen these rows; those of all processes, in their order."""
    gone = {row.lane: (row.window, row.gone) for row in found}
    return Place(place.lanes, place.rows + len(found), {**place.windows, **gone})


@pytest.mark.parametrize("lanes", [1, 4, 12])
def test_from_any_place_on_the_rows_are_those_of_an_undisturbed_training(lanes: int) -> None:
    undisturbed = rows(Place(lanes))
    for stop in (1, 7, 23, 59):
        place = Place.from_json(after(Place(lanes), undisturbed[:stop]).to_json())
        assert texts(rows(place, count=60 - stop)) == texts(undisturbed[stop:])


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    undisturbed = rows(Place(12))
    place = after(Place(12), undisturbed[:17])
    assert texts(rows(place, workers=workers, count=20)) == texts(undisturbed[17:37])


def test_processes_share_out_the_rows_of_one() -> None:
    undisturbed = rows(Place(12), count=60)
    for processes in (2, 3, 4):
        for process in range(processes):
            found = rows(Place(12), process, processes, count=60 // processes)
            assert texts(found) == texts(undisturbed[process::processes])


def test_another_number_of_processes_goes_on_where_the_others_stopped() -> None:
    undisturbed = rows(Place(12), count=66)
    place = after(Place(12), undisturbed[:30])  # 3 processes x 10 rows
    for processes in (1, 2, 4, 6):
        found = [rows(place, process, processes, count=36 // processes) for process in range(processes)]
        order = sorted(range(processes), key=lambda process: (process - 30) % processes)
        merged = [texts(found[process])[turn] for turn in range(36 // processes) for process in order]
        assert merged == texts(undisturbed[30:])


def test_in_an_epoch_every_piece_comes_once() -> None:
    pieces = 6 * (5 + 7 + 3 + 6) + 8 * 8
    one = windows()
    assert one.mixture.blocks == 40
    for epoch in range(3):
        seen: Counter[int] = Counter()
        for window in range(epoch * 20, (epoch + 1) * 20):
            for _, row in one.rows(window):
                starts = np.cumsum([0, *row.lengths[:-1]])
                whole = np.where(row.labels >= 0, row.labels, row.ids)
                seen.update(whole[starts].tolist())
                assert len(row.ids) == sum(row.lengths) <= CAPACITY
        assert len(seen) == pieces
        assert set(seen.values()) == {1}


def test_epochs_differ_in_order_and_in_what_is_masked() -> None:
    one = windows()
    first, second = ([row for w in range(20 * e, 20 * e + 20) for _, row in one.rows(w)] for e in (0, 1))
    assert texts(first) != texts(second)
    masked = [
        {int(row.labels[row.labels >= 0][0]) for row in epoch if (row.labels >= 0).any()} for epoch in (first, second)
    ]
    assert masked[0] != masked[1]


def test_weights_share_out_the_blocks() -> None:
    sources = [Numbered(0, [5] * 30), Numbered(1, [5] * 3)]
    mixture = Mixture(sources, [3.0, 1.0], seed=1)
    counts = Counter(int(mixture.read(place)[0].ids[0]) // 1000 for place in range(4000))
    assert counts == {0: 3000, 1: 1000}
    # The small source is repeated, epoch by epoch: each of its blocks comes as often as the others.
    small = Counter(int(piece.ids[0]) for place in range(4000) for piece in mixture.read(place) if piece.ids[0] > 1000)
    assert len(small) == 15
    assert max(small.values()) - min(small.values()) <= 1
    keys = [piece.key for place in range(4000) for piece in mixture.read(place)]
    assert len(set(keys)) == len(keys), "each has a key of its own in each epoch"


def test_lanes_must_be_shared_out_evenly() -> None:
    with pytest.raises(ValueError, match="12 lanes cannot be shared out among 5 processes"):
        row_loader(windows(), Place(12), 0, 5, 0)


def test_data_without_text_is_refused() -> None:
    empty = Windows(Mixture([Numbered(0, [0, 0])], None, 1), 1, partial(pack, capacity=8), MASKING)
    for workers in (0, 1):
        with pytest.raises(RunError, match=r"^the data holds no text at all$"):
            next(iter(Batches(row_loader(empty, Place(2), 0, 1, workers), 1, packed_batch)))


def test_batches_hold_the_rows_in_order_and_say_where_the_training_stands() -> None:
    found = rows(Place(4), count=8)
    loader = row_loader(windows(), Place(4), 0, 1, 0)
    packed, padded = (
        next(islice(Batches(loader, 8, collate), 1)) for collate in (packed_batch, PaddedBatch(pad_id=9999, multiple=8))
    )
    assert packed["place"] == {row.lane: (row.window, row.gone) for row in found}
    assert packed["lengths"] == sorted(length for row in found for length in row.lengths)
    assert packed["cu_seqlens"].tolist() == np.cumsum([0, *packed["lengths"]]).tolist()
    assert packed["input_ids"].shape == (1, sum(len(row.ids) for row in found))

    def pieces(ids: np.ndarray, labels: np.ndarray, lengths: list[int]) -> Counter:
        ends = np.cumsum(lengths)
        return Counter(
            (tuple(ids[end - size : end].tolist()), tuple(labels[end - size : end].tolist()))
            for end, size in zip(ends, lengths, strict=True)
        )

    expected = sum((pieces(row.ids, row.labels, row.lengths) for row in found), Counter())
    assert pieces(packed["input_ids"][0].numpy(), packed["labels"][0].numpy(), packed["lengths"]) == expected
    mask = padded["attention_mask"].bool()
    assert padded["input_ids"].shape[1] % 8 == 0
    sizes = mask.sum(1).tolist()
    assert pieces(padded["input_ids"][mask].numpy(), padded["labels"][mask].numpy(), sizes) == expected
    assert (padded["input_ids"][~mask] == 9999).all()
    assert (padded["labels"][~mask] == -100).all()


def test_keys_of_masks_tell_sources_and_epochs_apart() -> None:
    assert len({key(1, source, epoch, 3) for source in range(3) for epoch in range(3)}) == 9
