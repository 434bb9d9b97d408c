"""Early stopping is right at zero, below it, with NaN, and in either direction."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from neobert.errors import RunError
from neobert.training.callbacks import EarlyStopping, StopOnNaN


def evaluations_until_stop(
    values: list[float], patience: int | None, threshold: float = 0.0, greater: bool = True
) -> int:
    """How many of `values` are looked at, with Trainer's own bookkeeping of the best one between them."""
    args = SimpleNamespace(metric_for_best_model="score", greater_is_better=greater)
    callback, state, control = EarlyStopping(patience, threshold), TrainerState(), TrainerControl()
    for count, value in enumerate(values, start=1):
        callback.on_evaluate(args, state, control, {"eval_score": value})  # type: ignore[arg-type]
        if state.best_metric is None:
            state.best_metric = -math.inf if greater else math.inf
        if value > state.best_metric if greater else value < state.best_metric:
            state.best_metric = value
        if control.should_training_stop:
            return count
    return len(values) + 1


@pytest.mark.parametrize(
    ("values", "patience", "seen"),
    [
        ([0.0, 0.0, 0.0, 0.5], 2, 3),  # a first score of 0 is one, and staying there is no improvement
        ([-0.5, -0.4, -0.3, -0.2], 1, 5),  # below zero, but better each time
        ([-0.2, -0.3, -0.1, -0.2, -0.2], 2, 5),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 5),
        ([math.nan, math.nan, 0.9], 2, 2),  # NaN first is no best score to begin with
        ([math.nan, -0.5, -0.4, math.nan, math.nan], 2, 5),
        ([0.5, math.nan, math.nan, 0.9], 2, 3),
        ([0.5, 0.1, 0.1, 0.1, 0.1], None, 6),
    ],
)
def test_it_counts_evaluations_without_improvement(values: list[float], patience: int | None, seen: int) -> None:
    assert evaluations_until_stop(values, patience) == seen


def test_a_gain_must_exceed_the_threshold() -> None:
    assert evaluations_until_stop([0.50, 0.52, 0.54, 0.56], 2, threshold=0.05) == 3
    assert evaluations_until_stop([-0.50, -0.40, -0.30, -0.20], 1, threshold=0.05) == 5


def test_a_loss_improves_by_falling() -> None:
    assert evaluations_until_stop([2.0, 1.0, 0.5, 0.6, 0.7], 2, greater=False) == 5


def test_the_count_comes_back_with_the_checkpoint() -> None:
    callback = EarlyStopping(3, 0.0)
    callback.failures = 2
    saved = TrainerState(stateful_callbacks=[callback])  # type: ignore[list-item]
    restored = EarlyStopping(3, 0.0)
    restored.restore(saved)
    assert (restored.failures, restored.exhausted) == (2, False)


@pytest.mark.parametrize(
    ("name", "kind"), [("loss", "training"), ("eval_loss", "evaluation"), ("eval_loss_mm", "evaluation")]
)
def test_a_loss_that_is_no_number_ends_the_training_with_advice(name: str, kind: str) -> None:
    with pytest.raises(RunError, match=rf"the {kind} loss is nan at step 7: .* lower optimizer.lr"):
        StopOnNaN().on_log(None, TrainerState(global_step=7), None, {name: math.nan})
    StopOnNaN().on_log(None, TrainerState(global_step=7), None, {name: 0.5, "eval_pearson": math.nan})
