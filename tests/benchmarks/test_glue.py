"""All ways of the benchmark are measured alike: without the first step, in examples and in real tokens."""

from __future__ import annotations

import pytest
import torch

from benchmarks import run_glue_flow
from benchmarks.glue import rates_after_first_step
from benchmarks.run_glue_flow import Clock


def line(step: int, samples: float, tokens: float) -> dict[str, float]:
    return {"step": step, "samples_per_second": samples, "tokens_per_second": tokens}


def test_the_first_step_and_what_comes_before_it_count_in_no_rate_of_ours() -> None:
    # 70 examples in batches of 32: steps of 32, 32, 6, and again; 9 steps in all.
    logged = [line(1, 0.1, 1.0), line(3, 19.0, 190.0), line(9, 70.0, 1400.0)]
    samples, tokens = rates_after_first_step(logged, 70, 32)
    assert samples == pytest.approx((38 + 140) / (2 + 2))
    assert tokens == pytest.approx((2 * 190 + 2 * 1400) / (2 + 2))


def test_a_training_that_is_too_short_says_so() -> None:
    with pytest.raises(SystemExit, match="a training of 20 examples in batches of 32 is too short to tell its rate"):
        rates_after_first_step([line(1, 0.1, 1.0)], 20, 32)


def test_the_peers_clock_counts_what_came_after_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 104.0])
    monkeypatch.setattr(run_glue_flow, "_now", lambda: next(times))
    clock = Clock()
    for lengths in ([9, 9], [3, 5], [4, 1]):
        width = max(lengths)
        clock.add((torch.arange(width) < torch.tensor(lengths)[:, None]).long())
        clock.on_step_end()
    clock.on_train_end()
    assert clock.told() == {"first_step": 100.0, "samples": 4, "tokens": 13, "seconds": 4.0}
