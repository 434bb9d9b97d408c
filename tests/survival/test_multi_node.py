"""Several nodes with several processes each, with DeepSpeed, give what one process gives, and other nodes take over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from slurm.rundir import TrialDir, read_log
from slurm.state import State
from tests.survival.conftest import Site, same, wait_until, weights

Reference = Callable[..., TrialDir]
STEPS = 40
# The same global batch of 8 in both: 4 processes with 2 examples each, or one with 8. There is no dropout, because each
# process would draw numbers of its own for it.
FOUR = {"trainer": {"per_device_train_batch_size": 2, "eval_steps": 20}, "model": {"classifier_dropout": 0.0}}
ONE = {"trainer": {"per_device_train_batch_size": 8, "eval_steps": 20}, "model": {"classifier_dropout": 0.0}}
# So small a model would otherwise stay whole in each process.
SHARDED = {"stage3_param_persistence_threshold": 0}
TWO_BY_TWO = {"nodes": 2, "procs_per_node": 2, "cpus": 2, "mem": "5G", "time": "00:20:00"}

TEXT: dict[str, Any] = {
    "data": {"generated": 2000},
    "tokenizer": {"train_vocab_size": 1000},
    "output": "{{ run }}/text",
    "max_seq_length": 64,
}
PRETRAINING: dict[str, Any] = {
    "dataset": {"path": "{{ run }}/text", "max_seq_length": 64},
    "model": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 192},
    "trainer": {"max_steps": 300, "per_device_train_batch_size": 4, "save_steps": 20, "use_cpu": True},
    "deepspeed": {"zero_stage": 2},
}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_nodes_with_two_ranks_and_zero_end_with_the_weights_of_one_process(
    site: Site, reference: Reference, stage: int
) -> None:
    deepspeed = {"zero_stage": stage} | (SHARDED if stage == 3 else {})
    recipe = site.recipe(FOUR | {"deepspeed": deepspeed}, steps=STEPS, resources=TWO_BY_TWO)
    site.submit(recipe)
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    log = (site.files().path / "logs/attempt-1.log").read_text()
    assert "all 4 processes on 2 nodes met" in log
    one = reference(ONE, steps=STEPS)
    # AdamW divides by the root of tiny squares, so that the order of a sum shows in the fifth digit of few weights.
    found_weights, expected_weights = weights(site.files(), STEPS), weights(one, STEPS)
    assert same(found_weights, expected_weights, tolerance=1e-4)
    differences = [(found_weights[name] - expected_weights[name]).abs().mean().item() for name in expected_weights]
    assert max(differences) < 1e-6
    found, expected = (json.loads(trial.result.read_text())["metrics"] for trial in (site.files(), one))
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)


@pytest.mark.slow
def test_zero_is_preempted_and_resumed_exactly(site: Site) -> None:
    config = FOUR | {"deepspeed": {"zero_stage": 2}}
    site.submit(site.recipe(config, seeds=(1, 2), steps=400, resources=TWO_BY_TWO))
    site.wait_step(60)
    site.cluster.run(["scancel", "--signal=USR2", site.job(0)])
    wait_until(lambda: site.attempts(0) == 2, 90, lambda: site.log())
    assert site.wait_ended().counts == {State.DONE: 2}, site.log()
    undisturbed = site.run()
    disturbed = weights(site.files(0), 400)
    site.submit(site.recipe(config, steps=400, resources=TWO_BY_TWO), "--new")
    assert site.run() != undisturbed
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert same(disturbed, weights(site.files(0), 400))


@pytest.mark.slow
def test_a_pretraining_on_two_nodes_goes_on_with_one(site: Site) -> None:
    """Cancelled, and submitted again with half the nodes: ZeRO's shards of four processes are those of two then."""
    path = site.work / "sweep.yaml"

    def submit(nodes: int) -> None:
        stages = {
            "text": {"task": "preprocess", "config": TEXT},
            "pretrain": {"task": "pretrain", "needs": ["text"], "config": PRETRAINING,
                         "resources": TWO_BY_TWO | {"nodes": nodes}},
        }  # fmt: skip
        path.write_text(yaml.safe_dump({**site.base(), "stages": stages}))
        site.submit(path)

    submit(nodes=2)
    site.wait_step(40, place=1, seconds=240)
    run = site.run()
    site.call("cancel", "sweep")
    wait_until(lambda: site.state().ended, 90, lambda: site.log(1))
    before = site.step(1)
    assert before < PRETRAINING["trainer"]["max_steps"]
    submit(nodes=1)
    assert site.run() == run
    assert site.wait_ended().counts == {State.DONE: 2}, site.log(1)
    logs = sorted((site.files(1).path / "logs").glob("attempt-*.log"))
    first, last = logs[0].read_text(), logs[-1].read_text()
    assert "all 4 processes on 2 nodes met" in first
    assert "was written by 4 processes, and now there are 2: a step has 8 rows instead of 16" in last
    steps = [row["step"] for row in read_log(site.files(1).path / "metrics.jsonl") if "loss" in row]
    assert steps == sorted(set(steps))
    assert steps[-1] == PRETRAINING["trainer"]["max_steps"]
