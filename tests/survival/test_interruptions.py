"""Time limits, preemption, and what a user's own hands do to a running job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from slurm.rundir import TrialDir, read_log
from slurm.state import State
from tests.survival.conftest import Site, logged_alike, same, wait_until, weights

Reference = Callable[..., TrialDir]


def test_at_the_time_limit_all_ranks_save_the_same_step_and_only_that_task_is_requeued(
    site: Site, reference: Reference
) -> None:
    two = {"nodes": 2, "cpus": 1, "mem": "2G", "time": "00:10:00"}
    longer = {"trainer": {"per_device_train_batch_size": 32}}
    site.submit(site.recipe(longer, seeds=(1, 2), steps=800, resources=two), max_requeues=3, signal_seconds=60)
    wait_until(lambda: site.attempts(0) == 1, 60, "it did not start")
    # Slurm looks every 30 s whose time is nearly over: the signal comes 30 to 60 s from now.
    site.cluster.run(["scontrol", "update", f"jobid={site.job(0)}", "timelimit=2"])
    wait_until(lambda: site.attempts(0) == 2, 150, lambda: site.log(0))
    site.cluster.run(["scontrol", "update", f"jobid={site.job(0)}", "timelimit=10"])
    state = site.wait_ended()
    assert state.counts == {State.DONE: 2}, site.log()
    lines = read_log(site.files(0).attempts)
    assert [line["exit_code"] for line in lines if "exit_code" in line] == [85, 0]
    assert lines[1]["step"] > 0
    site.measured.append(
        ("time limit: from the end with a checkpoint to the next attempt", lines[2]["start"] - lines[1]["end"])
    )
    assert site.attempts(1) == 1, "the sibling was left alone"
    assert "resumed from step" in (site.files(0).path / "logs/attempt-2.log").read_text()
    undisturbed = reference(longer, steps=800, processes=2)
    assert same(weights(site.files(0), 800), weights(undisturbed, 800)), "it ended as if nothing had happened"
    assert logged_alike(site.files(0), undisturbed)


def test_a_time_limit_that_leaves_no_time_for_a_step_is_a_failure_and_not_a_loop(site: Site) -> None:
    slow, opening = site.work / "slow", site.work / "opening"  # as from a file system that takes long to read
    program = "apptainer" if site.image else sys.executable
    slow.write_text(f'#!/bin/bash\n[[ $1 == --* ]] || {{ touch {opening}; sleep 15; }}\nexec {program} "$@"\n')
    slow.chmod(0o755)
    slowly: dict[str, Any] = {"container": {"runtime": str(slow)}} if site.image else {"python": str(slow)}
    site.submit(site.recipe(resources={"time": "00:10:00"}), signal_seconds=120, **slowly)
    wait_until(opening.exists, 60, "it did not start")
    site.cluster.run(["scancel", "--signal=USR2", site.job()])  # as the limit would, before the first training step
    state = site.wait_ended()
    assert state.counts == {State.TIMEOUT: 1}, site.log()
    assert "before it made a step" in state.trials[0].detail
    assert site.attempts() == 1
    site.call("retry")
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()


@pytest.mark.slow_cluster
def test_requeues_are_limited(site: Site) -> None:
    site.submit(site.recipe(steps=4000), max_requeues=1)
    for attempt in (1, 2):
        wait_until(lambda attempt=attempt: site.attempts() == attempt, 60, lambda: site.log())
        before = site.step()
        site.wait_step(before + 30)
        site.cluster.run(["scancel", "--signal=USR2", site.job()])
    state = site.wait_ended()
    assert state.counts == {State.TIMEOUT: 1}, site.log()
    assert "interrupted 1 times: no more restarts" in state.trials[0].detail


def test_a_preempted_trial_saves_waits_and_goes_on(site: Site, reference: Reference) -> None:
    site.submit(site.recipe(), partition="low")
    site.wait_step(50)
    node, begin = site.node(), time.time()
    rival = site.cluster.submit(
        ["--partition=main", f"--nodelist={node}", "--exclusive", "--time=5", "--output=/dev/null", "--wrap=sleep 12"]
    )
    site.cluster.wait_for_job(rival, "RUNNING", timeout=60)
    site.measure("preemption: until the other job runs", begin)
    seen = set()
    wait_until(lambda: seen.add(site.trial().state) or site.attempts() == 2, 90, lambda: site.log())
    assert seen & {State.REQUEUED, State.RUNNING} == seen or State.REQUEUED in seen, seen
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert same(weights(site.files(), 600), weights(reference(), 600))


def test_a_requeue_by_hand_goes_on_from_the_last_checkpoint(site: Site, reference: Reference) -> None:
    site.submit(site.recipe())
    site.wait_step(150)
    begin = time.time()
    site.cluster.run(["scontrol", "requeue", site.job()])
    states = set()
    wait_until(lambda: states.add(site.trial().state) or site.attempts() == 2, 90, lambda: site.log())
    site.measure("scontrol requeue: until the next attempt starts", begin)
    assert State.REQUEUED in states
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert same(weights(site.files(), 600), weights(reference(), 600))
    assert logged_alike(site.files(), reference())


@pytest.mark.slow_cluster
def test_a_cancelled_trial_is_told_so_keeps_its_checkpoint_and_goes_on_when_it_is_retried(
    site: Site, reference: Reference
) -> None:
    site.submit(site.recipe())
    site.wait_step(120)
    site.call("cancel")
    state = site.wait_ended()
    assert state.counts == {State.CANCELLED: 1}, site.log()
    site.call("retry")
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert same(weights(site.files(), 600), weights(reference(), 600))
    result = json.loads(site.files().result.read_text())
    assert result["steps"] == 600
