"""progress.json tells the truth about speed, phase and time, without being written all the time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neobert.training.progress import Meter, Progress

ALONE = SimpleNamespace(device="cpu", reduce=lambda counts, reduction: counts)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes when told to."""
    now = SimpleNamespace(value=1000.0)
    monkeypatch.setattr(time, "time", lambda: now.value)
    monkeypatch.setattr(time, "perf_counter", lambda: now.value)
    return now


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_meter_counts_tokens_that_are_no_padding_and_time_that_is_training(clock: SimpleNamespace) -> None:
    meter = Meter()
    meter.add(2, torch.tensor(4))
    clock.value += 2
    with meter.paused():
        clock.value += 100  # an evaluation
    meter.add(1, 2)
    clock.value += 2
    assert meter.read(ALONE) == {"samples_per_second": 3 / 4, "tokens_per_second": 6 / 4}
    clock.value += 1
    assert meter.read(ALONE) == {"samples_per_second": 0, "tokens_per_second": 0}


def test_the_meter_adds_up_all_processes(clock: SimpleNamespace) -> None:
    meter = Meter()
    meter.add(2, torch.tensor(6))
    clock.value += 1
    four = SimpleNamespace(device="cpu", reduce=lambda counts, reduction: {"sum": 4 * counts}[reduction])
    assert meter.read(four) == {"samples_per_second": 8, "tokens_per_second": 24}


def test_the_file_is_written_at_most_once_a_second_and_at_every_phase(tmp_path: Path, clock: SimpleNamespace) -> None:
    path = tmp_path / "progress.json"
    progress = Progress(path)
    assert (read(path)["phase"], read(path)["step"]) == ("starting", 0)
    progress.train_from(20, 100)
    assert (read(path)["phase"], read(path)["step"], read(path)["total_steps"]) == ("training", 20, 100)
    clock.value += 0.5
    progress.at_step(21)
    assert read(path)["step"] == 20
    with progress.phase("evaluating"):
        assert (read(path)["phase"], read(path)["step"]) == ("evaluating", 21)
    assert read(path)["phase"] == "training"
    clock.value += 1
    progress.update(loss=0.25, samples_per_second=8.0, grad_norm=1.0)
    progress.at_step(23)
    found = read(path)
    assert (found["step"], found["loss"], found["samples_per_second"], found["time"]) == (23, 0.25, 8.0, clock.value)
    assert "grad_norm" not in found
    assert found["seconds_left"] == 0.5 * 77  # three steps in 1.5 s since this attempt began
    progress.end("done")
    assert read(path)["phase"] == "done"


def test_where_steps_do_not_tell_how_many_there_will_be_is_guessed_by_what_each_has_done(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    progress = Progress(tmp_path / "progress.json", 10)
    progress.share = 0.5
    progress.train_from(10, 3000)  # which is more than there can be
    assert progress.total_steps == 0
    for progress.share, step, total in ((0.55, 11, 20), (0.6, 12, 20), (0.8, 13, 15), (0.99, 14, 15), (1.0, 15, 15)):
        clock.value += 2
        progress.at_step(step)
        found = read(tmp_path / "progress.json")
        assert (found["step"], found["total_steps"], found["seconds_left"]) == (step, total, 2 * (total - step))


def test_seconds_add_up_over_attempts(clock: SimpleNamespace) -> None:
    progress = Progress(None)
    clock.value += 5
    assert progress.seconds == 5
    progress.earlier_seconds = 60
    assert progress.seconds == 65
