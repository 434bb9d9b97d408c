"""Processes, nodes and links that break while a trial trains."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.rundir import TrialDir, read_log
from slurm.state import State
from tests.cluster import processes
from tests.survival.conftest import Site, logged_alike, same, wait_until, weights

Reference = Callable[..., TrialDir]


def ranks_of(files: TrialDir) -> list[int]:
    """The training processes of a trial on this machine (and so on all nodes of the cluster)."""
    found = []
    for pid, line in processes.command_lines().items():
        words = line.split(b"\0")
        if Path(os.fsdecode(words[0])).name.startswith("python") and str(files.path).encode() in words:
            found.append(pid)
    return found


def parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])


@pytest.fixture
def on_two_nodes(site: Site) -> Site:
    """Two trials that have come to step 150."""
    site.submit(site.recipe(seeds=(1, 2), resources={"nodes": 2, "cpus": 1, "mem": "2G"}))
    site.wait_step(150)
    return site


def test_a_killed_rank_fails_its_trial_alone_and_a_retry_goes_on(on_two_nodes: Site, reference: Reference) -> None:
    assert_killing_fails_one_trial(on_two_nodes, reference, "rank", ranks_of(on_two_nodes.files(0))[-1])


@pytest.mark.usefixtures("cpu_image")
def test_a_killed_apptainer_fails_its_trial_alone_and_a_retry_goes_on(on_two_nodes: Site, reference: Reference) -> None:
    victim = parent(ranks_of(on_two_nodes.files(0))[-1])
    assert "Apptainer" in Path(f"/proc/{victim}/cmdline").read_text()
    assert_killing_fails_one_trial(on_two_nodes, reference, "apptainer", victim)


def assert_killing_fails_one_trial(site: Site, reference: Reference, name: str, victim: int) -> None:
    begin = time.time()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: site.files(0).failure.exists(), 60, lambda: site.log(0))
    site.measure(f"kill -9 of {name}: until the trial's failure is known", begin)
    state = site.wait_ended()
    assert [trial.state for trial in state.trials] == [State.FAILED, State.DONE], site.log()
    site.call("retry")
    assert site.wait_ended().counts == {State.DONE: 2}, site.log()
    assert site.attempts(1) == 1
    assert same(weights(site.files(0), 600), weights(reference(processes=2), 600))
    assert logged_alike(site.files(0), reference(processes=2))


LONG = 2500  # steps: enough that the training still goes on when Slurm notices that a node is gone


def test_a_node_that_crashes_in_the_middle_of_a_checkpoint_costs_only_the_steps_since_the_last_one(
    site: Site, reference: Reference
) -> None:
    # Larger weights, so that a checkpoint takes long enough to be caught while it is written.
    config = {"model": {"hidden_size": 256, "vocab_size": 30000, "intermediate_size": 512}}
    site.submit(site.recipe(config, steps=300))
    site.wait_step(100, seconds=240)
    checkpoints = site.files().path / "checkpoints"
    node = site.node()
    wait_until(lambda: (checkpoints / "checkpoint-100" / "complete.json").exists(), 60, lambda: site.log())

    def half_written() -> list[Path]:
        return [path for path in checkpoints.glob("partial*/checkpoint-*/*") if path.stat().st_size > 0]

    wait_until(half_written, 240, lambda: site.log())
    for pid in ranks_of(site.files()):
        os.kill(pid, signal.SIGSTOP)  # it takes a moment to crash a node
    site.cluster.fault("crash", node)
    begin = time.time()
    left = half_written()
    assert left, "the crash came too late to find a checkpoint half written"
    assert not (checkpoints / "checkpoint-200").exists()
    wait_until(lambda: site.attempts() == 2, 120, lambda: site.log())
    site.measure("node crash: until the next attempt starts on another node", begin)
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert site.node() != node
    assert "resumed from step 100" in (site.files().path / "logs/attempt-2.log").read_text()
    assert not list(checkpoints.glob("partial*")), "what the first attempt left is gone"
    assert same(weights(site.files(), 300), weights(reference(config, steps=300), 300))


@pytest.mark.slow_cluster
@pytest.mark.parametrize("fault", ["link-down", "kill-slurmd"])
def test_when_an_old_attempt_runs_on_unseen_one_writer_wins(site: Site, reference: Reference, fault: str) -> None:
    """Slurm takes the node for dead and starts the trial elsewhere; the processes on it know nothing of that."""
    site.submit(site.recipe(steps=LONG))
    site.wait_step(150)
    node, begin = site.node(), time.time()
    site.cluster.fault(fault, node)
    wait_until(lambda: site.attempts() == 2, 120, lambda: site.log())
    site.measure(f"{fault}: until the next attempt starts on another node", begin)
    claimed = time.time()
    assert site.node() != node
    if fault == "link-down":  # without slurmd, Slurm's srun on that node ends the processes itself
        first = site.files().path / "logs/attempt-1.log"
        wait_until(lambda: "lease" in first.read_text().split("training:")[-1], 60, lambda: site.log())
        site.measure("link-down: until the old attempt has noticed and stopped", claimed)
    wait_until(lambda: len(ranks_of(site.files())) == 1, 30, "two attempts train at once")
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    second = (site.files().path / "logs/attempt-2.log").read_text()
    assert "resumed from step" in second
    assert same(weights(site.files(), LONG), weights(reference(steps=LONG), LONG))
    assert logged_alike(site.files(), reference(steps=LONG)), "no line twice, none missing"
    assert (site.files().path / "lease").read_text().strip() == "2"
    assert not site.files().failure.exists()
    ends = [row for row in read_log(site.files().attempts) if "end" in row and row["attempt"] == 2]
    assert [row["exit_code"] for row in ends] == [0]
    assert json.loads(site.files().result.read_text())["steps"] == LONG
