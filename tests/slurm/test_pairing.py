"""Which trials of two runs belong together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm.pairing import Pairing, pair_trials
from slurm.state import State, TrialState


def trials(stage: str = "glue", **axes: list[Any]) -> list[TrialState]:
    """All points of a grid; `__` stands for the dot in a key."""
    keys = [key.replace("__", ".") for key in axes]
    return [
        TrialState(f"{stage}{values}", stage, dict(zip(keys, values, strict=True)), State.NEW)
        for values in itertools.product(*axes.values())
    ]


def paired(found: Pairing) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(dict(pair.a.point), dict(pair.b.point)) for pair in found.pairs if pair.a and pair.b]


def test_trials_are_paired_by_task_and_seed_in_the_order_of_the_first_run() -> None:
    a, b = trials(task_name=["rte", "cola"], seed=[1, 2]), trials(seed=[2, 1], task_name=["cola", "rte"])
    found = pair_trials(a, b)
    assert paired(found) == [(dict(trial.point), dict(trial.point)) for trial in a]
    assert found.apart == ()


def test_what_one_run_lacks_stays_alone() -> None:
    found = pair_trials(trials(seed=[1, 2, 3]), trials(seed=[2, 3, 4]))
    alone = [(pair.point["seed"], bool(pair.a), bool(pair.b)) for pair in found.pairs if not (pair.a and pair.b)]
    assert alone == [(1, True, False), (4, False, True)]


def test_a_key_that_tells_the_runs_apart_does_not_keep_trials_apart() -> None:
    a = trials(model__name=["x"], seed=[1, 2], task_name=["rte"])
    b = trials(model__name=["y"], seed=[1, 2], task_name=["rte"], optimizer__lr=[1e-5])
    found = pair_trials(a, b)
    assert len(paired(found)) == 2
    assert found.apart == ("model.name (A: x; B: y)", "optimizer.lr (A: not in its grid; B: 1e-05)")
    assert [dict(pair.point) for pair in found.pairs] == [
        {"seed": 1, "task_name": "rte"}, {"seed": 2, "task_name": "rte"},
    ]  # fmt: skip


def test_values_that_go_with_the_task_may_be_others_in_the_other_run() -> None:
    def run(first: float, second: float) -> list[TrialState]:
        return [
            *trials(task_name=["rte"], optimizer__lr=[first], seed=[1]),
            *trials(task_name=["mrpc"], optimizer__lr=[second], seed=[1]),
        ]

    assert len(paired(pair_trials(run(1e-5, 2e-5), run(3e-5, 4e-5)))) == 2


def test_a_key_with_a_value_in_both_runs_pairs() -> None:
    found = pair_trials(trials(lr=[1, 2], seed=[1]), trials(lr=[2.0, 3.0], seed=[1]))
    assert paired(found) == [({"lr": 2, "seed": 1}, {"lr": 2.0, "seed": 1})], "3 and 3.0 are the same"
    assert len(found.pairs) == 3


def test_stages_are_never_mixed() -> None:
    both = [*trials("one", seed=[1]), *trials("two", seed=[1])]
    found = pair_trials(both, trials("two", seed=[1]))
    assert [(pair.stage, bool(pair.b)) for pair in found.pairs] == [("one", False), ("two", True)]
    with pytest.raises(ConfigError, match="stage one is in A alone; stage three is in B alone"):
        pair_trials(trials("one", seed=[1, 2]), trials("three", seed=[1, 2]))


def test_trials_without_a_grid_are_a_pair() -> None:
    assert paired(pair_trials(trials(), trials())) == [({}, {})]


def test_several_counterparts_are_an_error_that_names_the_keys() -> None:
    a, b = trials(lr=[1, 2], seed=[1, 2]), trials(seed=[1, 2])
    message = r"A has several for seed=1, which differ in lr \(A: 1, 2; B: not in its grid\). Submit the other run with"
    with pytest.raises(ConfigError, match=message):
        pair_trials(a, b)
    with pytest.raises(ConfigError, match=r"B has several for seed=1, which differ in lr"):
        pair_trials(b, a)


@pytest.mark.parametrize("key", ["seed", "task_name"])
def test_other_seeds_and_other_tasks_are_no_pairs(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"they differ in {key} \(A: 1; B: 2, 3, 4, 5, 6, …\)\. Submit one"):
        pair_trials(trials(**{key: [1]}), trials(**{key: [2, 3, 4, 5, 6, 7]}))
