"""Learning rates go up, stay and come down as their schedule says, in steps and in tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.optimization import _get_cosine_schedule_with_warmup_lr_lambda as huggingface_cosine
from transformers.optimization import _get_linear_schedule_with_warmup_lr_lambda as huggingface_linear

from neobert.training.schedules import Schedule, scheduler

NAMES = ("cosine", "linear", "wsd", "constant")
share = st.floats(0, 1)
schedules = st.builds(Schedule, st.sampled_from(NAMES), share, share, share)


@given(schedules, share)
def test_a_share_is_never_below_zero_nor_above_one(schedule: Schedule, done: float) -> None:
    assert 0 <= schedule(done) <= 1 + 1e-12


@given(schedules, share, share)
def test_it_goes_up_during_the_warm_up_and_never_after_it(schedule: Schedule, one: float, other: float) -> None:
    early, late = sorted((one, other))
    if late < schedule.warmup:
        assert schedule(early) <= schedule(late)
    elif early >= schedule.warmup:
        assert schedule(early) >= schedule(late) - 1e-12


@given(schedules)
def test_the_warm_up_ends_at_the_highest(schedule: Schedule) -> None:
    if schedule.warmup < 1:
        assert schedule(schedule.warmup) == 1


@given(st.sampled_from(NAMES), st.floats(1, 20, exclude_min=True), share)
def test_a_training_may_end_in_the_warm_up(name: str, warmup: float, done: float) -> None:
    assert Schedule(name, warmup, 0.2, 0.1)(done) == done / warmup


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
@given(warmup=st.floats(0, 0.99), decay=st.floats(0.01, 1), final=share, beyond=st.floats(0, 10))
def test_the_end_is_the_final_share_and_nothing_is_beyond(
    name: str, warmup: float, decay: float, final: float, beyond: float
) -> None:
    assert Schedule(name, warmup, decay, final)(1 + beyond) == pytest.approx(final, abs=1e-12)


@given(schedules, share)
def test_there_is_no_jump(schedule: Schedule, done: float) -> None:
    steep = [part for part in (schedule.warmup, 1 - schedule.warmup, schedule.decay) if part > 0]
    step = 1e-9 * min(steep, default=1.0)
    allowed = 1e-3 if schedule.name == "wsd" else 1e-6  # 1 - sqrt is as steep as can be where it begins
    assert schedule(min(done + step, 1.0)) == pytest.approx(schedule(done), abs=allowed)


def test_between_warm_up_and_decay_wsd_stays() -> None:
    schedule = Schedule("wsd", 0.1, 0.2, 0.1)
    assert {schedule(done) for done in (0.1, 0.3, 0.5, 0.8)} == {1.0}
    quarter = schedule(0.8 + 0.2 / 4)  # of the way down: 1 - sqrt(1/4) is left, above the final tenth
    assert quarter == pytest.approx(0.1 + 0.9 * 0.5)


def test_a_decay_that_would_begin_in_the_warm_up_begins_after_it() -> None:
    schedule = Schedule("wsd", 0.5, 0.8)
    assert schedule(0.5) == 1
    assert schedule(0.75) == pytest.approx(1 - math.sqrt(0.5))


@pytest.mark.parametrize(("name", "theirs"), [("cosine", huggingface_cosine), ("linear", huggingface_linear)])
def test_it_is_hugging_faces_schedule(name: str, theirs: Callable[..., float]) -> None:
    cycles = {"num_cycles": 0.5} if name == "cosine" else {}
    schedule = Schedule(name, 10 / 50)
    for step in range(51):
        expected = theirs(step, num_warmup_steps=10, num_training_steps=50, **cycles)
        assert schedule(step / 50) == pytest.approx(expected, abs=1e-12), step


class Training:
    """Takes steps of given sizes, as a trainer does: the schedule is asked before the first, and after each."""

    def __init__(self, schedule: Schedule, whole: int, sizes: list[int], lr: float = 3.0):
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([{"params": [self.weight], "lr": lr}])
        self.sizes, self.whole, self.taken = sizes, whole, 0
        self.scheduler = scheduler(self.optimizer, schedule, lambda: sum(sizes[: self.taken + 1]) / whole)

    def go(self, steps: int) -> list[float]:
        """The learning rates of the steps."""
        rates = []
        for _ in range(steps):
            rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.step()
            self.taken += 1
            self.scheduler.step()
        return rates


def test_no_step_of_the_warm_up_is_lost_and_the_last_step_has_the_last_learning_rate() -> None:
    rates = Training(Schedule("linear", 4 / 12, final=0.25), 12, [1] * 12).go(12)
    assert rates[:4] == pytest.approx([0.75, 1.5, 2.25, 3.0])
    assert rates[-1] == pytest.approx(0.75)


def test_a_training_without_warm_up_begins_just_below_the_highest() -> None:
    assert Training(Schedule("linear", 0.0), 100, [1] * 100).go(1) == pytest.approx([3.0 * 0.99])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("warmup", "final"), [(0.0, 0.0), (0.02, 0.0), (1.0, 0.0), (5.0, 0.0), (0.02, 0.1)])
def test_no_training_has_a_learning_rate_of_zero_in_every_step(name: str, warmup: float, final: float) -> None:
    for steps in (1, 2, 3):
        assert max(Training(Schedule(name, warmup, 0.2, final), steps, [1] * steps).go(steps)) > 0
    assert Training(Schedule(name, warmup, 0.2, final), 10, [30]).go(1)[0] > 0, "in tokens, all of them in one step"


def test_in_tokens_it_follows_how_many_were_seen() -> None:
    rates = Training(Schedule("linear", 0.5), 1000, [100, 300, 100, 400, 100]).go(5)
    assert rates == pytest.approx([0.6, 2.4, 3.0, 0.6, 0.0])


@given(schedules, st.integers(1, 9))
def test_a_resumed_training_has_the_learning_rates_of_an_undisturbed_one(schedule: Schedule, stop: int) -> None:
    undisturbed = Training(schedule, 10, [1] * 10).go(10)
    before = Training(schedule, 10, [1] * 10)
    assert before.go(stop) == undisturbed[:stop]
    after = Training(schedule, 10, [1] * 10)
    after.taken = stop
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    after.scheduler.load_state_dict(before.scheduler.state_dict())
    assert after.scheduler.get_last_lr() == undisturbed[stop : stop + 1]
    assert after.go(10 - stop) == undisturbed[stop:]


def test_a_training_that_begins_from_anothers_checkpoint_has_its_own_learning_rate() -> None:
    schedule = Schedule("constant", 0.0)
    other, mine = Training(schedule, 10, [1] * 10, lr=3.0), Training(schedule, 10, [1] * 10, lr=0.5)
    other.go(2)
    mine.scheduler.load_state_dict(other.scheduler.state_dict())
    assert mine.go(3) == [0.5, 0.5, 0.5]
