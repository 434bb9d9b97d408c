"""The same rows in the same order, whoever reads them, and from wherever."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
import pytest

from neobert.data.order import key
from neobert.data.text.masking import Masking
from neobert.data.text.packing import pack
from neobert.data.text.sources import Mixture, Piece
from neobert.data.text.stream import Batches, NoText, PaddedBatch, Place, Row, Windows, packed_batch, row_loader

CAPACITY = 32
VOCABULARY = 10_000


@dataclass
class Numbered:
    """Pieces of which each token tells the piece: number n of source s is all 1000 s + n + 1."""

    source: int
    sizes: list[int]
    """How many pieces are in each block."""
    identity: str = ""
    version: str = ""

    @property
    def blocks(self) -> int:
        return len(self.sizes)

    @property
    def amount(self) -> float:
        return sum(self.sizes)

    def read(self, seed: int, epoch: int, place: int) -> list[Piece]:
        first = sum(self.sizes[:place])
        numbers = range(first, first + self.sizes[place])
        return [Piece(np.full(n % 9 + 2, 1000 * self.source + n + 1), n) for n in numbers]


MASKING = Masking(0.3, True, 0, np.zeros(VOCABULARY, bool), np.arange(1, VOCABULARY))
PIECES = 6 * (5 + 7 + 3 + 6) + 8 * 8


def windows(lanes: int, blocks: int = 2, together: int = 256) -> Windows:
    mixture = Mixture([Numbered(0, [5, 7, 3, 6] * 6), Numbered(1, [4, 4] * 8)], None, 5)
    return Windows(mixture, lanes, blocks, together, partial(pack, capacity=CAPACITY), MASKING)


class Training:
    """All processes of a training, as the trainer drives them: a step ends when each has its batch of `size` rows."""

    def __init__(self, place: Place, processes: int = 1, workers: int = 0, size: int = 1, some: Windows | None = None):
        self.place = place
        self.size = size
        self.batches = [
            Batches(some or windows(place.lanes), place, process, processes, workers, size, list)
            for process in range(processes)
        ]
        for one in self.batches:
            one._collate = lambda rows: {"taken": rows}
        self.iterators = list(map(iter, self.batches))
        self.epochs = 0

    @property
    def epoch(self) -> int:
        (epoch,) = {batches._turns._epoch for batches in self.batches}
        return epoch

    def step(self) -> list[Row]:
        """The rows of all processes."""
        found = [next(iterator) for iterator in self.iterators]
        (behind,) = {batches.behind for batches in self.batches}
        for _ in range(behind + 1):
            if any(batch["rows"] for batch in found):
                break
            self.epochs += 1
            for batches in self.batches:
                batches.next_epoch()
            found = [next(iterator) for iterator in self.iterators]
        for batch in found:
            self.place = Place(self.place.lanes, {**self.place.reached, **batch["place"]})
        return [row for batch in found for row in batch["taken"][: batch["rows"]]]

    def rows(self, steps: int) -> list[Row]:
        return [row for _ in range(steps) for row in self.step()]


def rows(place: Place, workers: int = 0, count: int = 60) -> list[Row]:
    return Training(place, workers=workers).rows(count)


def texts(found: list[Row]) -> list[tuple[list[int], list[int]]]:
    return [(row.ids.tolist(), row.labels.tolist()) for row in found]


def names(found: list[Row]) -> list[int]:
    """Which pieces are in these rows."""
    seen = []
    for row in found:
        starts = np.cumsum([0, *row.lengths[:-1]])
        whole = np.where(row.labels >= 0, row.labels, row.ids)
        seen += whole[starts].tolist()
        assert len(row.ids) == sum(row.lengths) <= CAPACITY
    return seen


@pytest.mark.parametrize("lanes", [1, 4, 12])
def test_from_any_place_on_the_rows_are_those_of_an_undisturbed_training(lanes: int) -> None:
    undisturbed = rows(Place(lanes), count=100)
    assert len(names(undisturbed)) > PIECES, "into the second epoch"
    for stop in (1, 7, 23, 40, 41, 42, 43, 44, 45, 46, 47, 48, 59, 80):
        training = Training(Place(lanes))
        training.rows(stop)
        place = Place.from_json(json.loads(json.dumps(training.place.to_json())))
        assert texts(rows(place, count=100 - stop)) == texts(undisturbed[stop:]), stop


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    undisturbed = rows(Place(12), count=70)
    training = Training(Place(12))
    training.rows(17)
    assert texts(rows(training.place, workers=workers, count=53)) == texts(undisturbed[17:])


def test_processes_share_out_the_rows_of_one() -> None:
    """Up to where the first lane ends its epoch."""
    undisturbed = rows(Place(12), count=24)
    for processes in (2, 3, 4):
        training = Training(Place(12), processes)
        assert texts(training.rows(24 // processes)) == texts(undisturbed)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize(("size", "together"), [(1, 256), (4, 256), (3, 4)])
def test_in_an_epoch_every_piece_comes_once(processes: int, size: int, together: int) -> None:
    """Also where processes have rows left of it while others have none."""
    training = Training(Place(12), processes, size=size, some=windows(12, together=together))
    seen: list[list[int]] = [[], [], [], []]
    while training.epochs < 3:
        found = training.step()
        seen[training.epochs] += names(found)
    for epoch in seen[:3]:
        assert len(epoch) == len(set(epoch)) == PIECES


def test_when_the_number_of_processes_changes_nothing_is_lost_and_nothing_repeated_in_the_epoch() -> None:
    choices = Random(3)
    for _ in range(6):
        place, seen = Place(12), [[], [], []]
        while len(seen[2]) == 0:
            training = Training(place, choices.choice([1, 2, 3, 4, 6]), size=choices.choice([1, 2, 5]))
            for _ in range(choices.randint(1, 7)):
                found = training.step()
                seen[min(training.epoch, 2)] += names(found)
            place = training.place
        for epoch in seen[:2]:
            assert len(epoch) == len(set(epoch)) == PIECES


def test_a_window_is_read_in_parts_of_which_each_fits_into_memory() -> None:
    """A compressed file is one block, however large; of its pieces only so many are held at once."""
    held: list[int] = []

    class Large(Numbered):
        def read(self, seed: int, epoch: int, place: int) -> Iterator[Piece]:
            for piece in super().read(seed, epoch, place):
                held.append(1)
                yield piece

    one = Windows(Mixture([Large(0, [500])], None, 1), 1, 1, 50, partial(pack, capacity=CAPACITY), MASKING)
    some = one.rows(0)
    first = next(some)
    assert len(held) <= 51
    every = [row for _, row in [first, *some]]
    assert sorted(names(every)) == list(range(1, 501))
    numbers = [number for number, _ in one.rows(0)]
    assert numbers == list(range(len(every)))
    assert texts([row for _, row in one.rows(0, skip=20)]) == texts(every[20:])


def test_more_lanes_than_blocks_leave_some_without_text() -> None:
    small = Windows(Mixture([Numbered(0, [9, 9, 9])], None, 1), 8, 1, 256, partial(pack, capacity=CAPACITY), MASKING)
    training = Training(Place(8), 4, size=2, some=small)
    seen = []
    while not training.epochs:
        seen += names(training.step()) if not training.epochs else []
    assert sorted(set(seen)) == list(range(1, 28))


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("processes", [1, 2])
def test_from_any_epoch_on_lanes_without_text_change_nothing(files: int, processes: int) -> None:
    """Each file is a block of its own, and most of the 8 lanes have none."""
    mixture = Mixture([Numbered(0, [30] * files)], None, 1)
    some = Windows(mixture, 8, 1, 256, partial(pack, capacity=CAPACITY), MASKING)
    undisturbed = Training(Place(8), processes, size=2, some=some)
    steps, places, epochs = [], [undisturbed.place], [0]
    while undisturbed.epoch < 5:
        steps.append(texts(undisturbed.step()))
        places.append(Place.from_json(json.loads(json.dumps(undisturbed.place.to_json()))))
        epochs.append(undisturbed.epoch)
    assert len(places[-1].reached) == files, "some lanes have no text"
    for stop in range(len(steps)):
        resumed = Training(places[stop], processes, size=2, some=some)
        assert [texts(resumed.step()) for _ in steps[stop:]] == steps[stop:], stop
        assert abs(some.epoch(places[stop]) - epochs[stop]) <= 1


def test_epochs_differ_in_order_and_in_what_is_masked() -> None:
    one = windows(4)
    each = one.in_an_epoch
    first, second = ([row for w in range(each * e, each * (e + 1)) for _, row in one.rows(w)] for e in (0, 1))
    assert texts(first) != texts(second)
    masked = [
        {int(row.labels[row.labels >= 0][0]) for row in epoch if (row.labels >= 0).any()} for epoch in (first, second)
    ]
    assert masked[0] != masked[1]


@pytest.mark.parametrize("size", [5, 50])
def test_weights_share_out_the_text_however_large_blocks_are(size: int) -> None:
    sources = [Numbered(0, [5] * 30), Numbered(1, [size] * 3)]
    mixture = Mixture(sources, [3.0, 1.0], seed=1)
    found = Counter(int(piece.ids[0]) // 1000 for place in range(4000) for piece in mixture.read(place))
    assert found[0] / found[1] == pytest.approx(3, rel=0.02)


def test_a_small_source_is_repeated_epoch_by_epoch() -> None:
    mixture = Mixture([Numbered(0, [5] * 30), Numbered(1, [5] * 3)], [3.0, 1.0], seed=1)
    # Each of its blocks comes as often as the others.
    small = Counter(int(piece.ids[0]) for place in range(4000) for piece in mixture.read(place) if piece.ids[0] > 1000)
    assert len(small) == 15
    assert max(small.values()) - min(small.values()) <= 1
    keys = [piece.key for place in range(4000) for piece in mixture.read(place)]
    assert len(set(keys)) == len(keys), "each has a key of its own in each epoch"


def test_a_weight_that_would_never_have_its_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="a weight is too small"):
        Mixture([Numbered(0, [5] * 30), Numbered(1, [5] * 3)], [1.0, 1e-7], seed=1)


def test_lanes_must_be_shared_out_evenly() -> None:
    with pytest.raises(ValueError, match="12 lanes cannot be shared out among 5 processes"):
        row_loader(windows(12), Place(12), 0, 5, 0)


def test_data_without_text_is_refused() -> None:
    endless = Mixture([Numbered(0, [0, 0]), Numbered(1, [0])], None, 1)
    endless.weighted, endless._turns, endless._counts = True, np.array([0, 0, 1]), np.array([2, 1])
    empty = Windows(endless, 2, 1, 256, partial(pack, capacity=8), MASKING)
    for workers in (0, 1):
        with pytest.raises(NoText):
            next(iter(Batches(empty, Place(2), 0, 1, workers, 1, packed_batch)))


def test_batches_hold_the_rows_in_order_and_say_where_the_training_stands() -> None:
    found = rows(Place(4), count=8)
    packed, padded = (
        next(iter(Batches(windows(4), Place(4), 0, 1, 0, 8, collate)))
        for collate in (packed_batch, PaddedBatch(pad_id=9999, multiple=8))
    )
    assert packed["place"] == {row.lane: row.reached for row in found}
    assert packed["rows"] == 8
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
