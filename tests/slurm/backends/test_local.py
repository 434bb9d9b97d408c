"""The local queue: limits, GPU slots, cancelling, resuming, and outliving the terminal."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm.backends import slots
from slurm.backends.local import LocalBackend, alive
from slurm.rundir import RunDir, find_run, read_jsonl
from slurm.state import RunState, State, run_state

Recipe = Callable[..., subprocess.CompletedProcess[str]]


def submit(
    run_recipe: Recipe, recipe: Path, stand_in: Path, *options: str, env: dict[str, str] | None = None
) -> RunDir:
    done = run_recipe("submit", recipe, "--cluster", stand_in, *options, env=env)
    assert done.returncode == 0, done.stderr
    return find_run(Path.cwd() / "runs", None)


def wait(run: RunDir, until: Callable[[RunState], bool], seconds: float = 30) -> RunState:
    deadline = time.monotonic() + seconds
    while not until(state := run_state(run)):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def events(run: RunDir) -> list[dict[str, Any]]:
    return [row for path in sorted(run.queue.glob("*/events.jsonl")) for row in read_jsonl(path)]


def wait_queue(run: RunDir) -> None:
    """Until the queue itself is through; a trial's result is there a moment earlier."""
    wait(run, lambda _: not any(alive(path) for path in run.queue.iterdir()))


def most_at_once(run: RunDir) -> int:
    running: set[int] = set()
    most = 0
    for row in events(run):
        if "task" in row:
            running = running | {row["task"]} if row["state"] == "RUNNING" else running - {row["task"]}
            most = max(most, len(running))
    return most


def test_submit_returns_at_once_and_every_trial_gets_its_result(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, env={"STAND_IN_STEPS": "40"})
    assert not run_state(run).ended, "a trial takes two seconds: it has not waited for them"
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.DONE: 4}
    scores = [round(trial.result["score"], 2) for trial in state.trials]
    assert scores == [0.6, 0.7, 0.6, 0.7], "in the order of the grid"


def test_no_more_run_at_once_than_the_recipe_or_the_machine_allows(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, "--set", "array.parallel=1")
    wait_queue(run)
    assert most_at_once(run) == 1
    run = submit(run_recipe, recipe, stand_in, "--new")
    wait(run, lambda state: state.ended)
    assert 1 <= most_at_once(run) <= len(os.sched_getaffinity(0))


def test_two_runs_share_the_machine(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    every = f"resources.cpus={len(os.sched_getaffinity(0))}"
    first = submit(run_recipe, recipe, stand_in, "--set", every)
    second = submit(run_recipe, recipe, stand_in, "--set", every, "--new")
    assert first != second
    wait_queue(first)
    wait_queue(second)
    spans = []
    for run in (first, second):
        starts = {row["task"]: row["time"] for row in events(run) if row.get("state") == "RUNNING"}
        spans += [(starts[row["task"]], row["time"]) for row in events(run) if row.get("state") == "COMPLETED"]
    spans.sort()
    assert len(spans) == 8
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), spans


def test_gpu_slots_are_handed_out_so_that_no_two_trials_share_one(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    gpus = {"CUDA_VISIBLE_DEVICES": "3,5", "STAND_IN_STEPS": "6"}
    run = submit(run_recipe, recipe, stand_in, "--set", "resources.gpus_per_node=1", env=gpus)
    state = wait(run, lambda state: state.ended)
    given = [trial.result["environment"]["CUDA_VISIBLE_DEVICES"] for trial in state.trials]
    assert set(given) <= {"3", "5"}
    overlap = most_at_once(run)
    assert overlap <= 2
    assert overlap == 1 or set(given) == {"3", "5"}


def test_more_gpus_or_nodes_than_there_are_is_refused_before_anything_is_queued(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    done = run_recipe(
        "submit",
        recipe,
        "--cluster",
        stand_in,
        "--set",
        "resources={gpus_per_node: 2, cpus: 2}",
        env={"CUDA_VISIBLE_DEVICES": "0"},
    )
    assert done.returncode == 2
    assert "asks for 2 GPUs and this machine has 1" in done.stderr
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--set", "resources.nodes=2")
    assert done.returncode == 2
    assert "asks for 2 nodes" in done.stderr
    assert not list(work.glob("runs/*/*/queue")), "nothing is queued"


def test_cancelled_trials_keep_their_checkpoints_and_go_on_when_submitted_again(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    slow = {"STAND_IN_STEPS": "60"}
    run = submit(run_recipe, recipe, stand_in, "--set", "array.parallel=1", env=slow)
    wait(run, lambda state: any((trial.progress.get("step") or 0) > 3 for trial in state.trials))
    done = run_recipe("cancel", "sweep")
    assert done.returncode == 0
    assert "cancelled 4 array tasks" in done.stdout
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.CANCELLED: 4}
    again = submit(run_recipe, recipe, stand_in, env={"STAND_IN_STEPS": "20"})
    assert again == run
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.DONE: 4}
    assert state.trials[0].result["started_at"] > 3, "it went on from its checkpoint"
    assert state.trials[0].attempts == 2
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", stand_in).stdout


def test_one_trial_can_be_cancelled_alone(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    run = submit(run_recipe, recipe, stand_in, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "20"})
    victim = run_state(run).trials[3].id
    assert "cancelled 1 array task" in run_recipe("cancel", "--trial", victim[:6]).stdout
    state = wait(run, lambda state: state.ended)
    assert [trial.state for trial in state.trials] == [State.DONE, State.DONE, State.DONE, State.CANCELLED]


def test_failed_trials_run_again_and_finished_ones_do_not(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "2"})
    assert done.returncode == 1, "--wait tells whether all are done"
    run = find_run(Path.cwd() / "runs", "sweep")
    state = run_state(run)
    assert state.counts == {State.DONE: 2, State.FAILED: 2}
    assert "exit code 3, attempt 1" in state.trials[1].detail
    assert "it does not work" in state.trials[1].detail, "the last line of its log"
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    assert done.returncode == 0
    state = run_state(run)
    assert [trial.attempts for trial in state.trials] == [1, 2, 1, 2]


def test_a_trial_that_checkpoints_and_stops_is_queued_again_by_itself(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(
        run_recipe,
        recipe,
        stand_in,
        "--set",
        "grid={seed: [1]}",
        "--set",
        "config.task_name=rte",
        env={"STAND_IN_STEPS": "40"},
    )
    wait(run, lambda state: (state.trials[0].progress.get("step") or 0) > 3)
    pid = next(row["pid"] for row in events(run) if row.get("state") == "RUNNING")
    os.kill(pid, signal.SIGUSR2)
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.DONE: 1}
    assert state.trials[0].attempts == 2
    assert state.trials[0].result["started_at"] > 3


def test_the_queue_is_a_session_of_its_own_and_survives_a_hangup(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in)
    pid = next(row["pid"] for row in events(run) if row.get("state") == "START")
    assert os.getsid(pid) == pid, "it has left the terminal's session"
    os.kill(pid, signal.SIGHUP)
    assert wait(run, lambda state: state.ended).counts == {State.DONE: 4}


def test_when_the_queue_is_killed_its_trials_stop_and_a_new_submission_goes_on(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "60"})
    wait(run, lambda state: any((trial.progress.get("step") or 0) > 3 for trial in state.trials))
    pid = next(row["pid"] for row in events(run) if row.get("state") == "START")
    os.kill(pid, signal.SIGKILL)
    state = wait(run, lambda state: "saved a checkpoint" in state.trials[0].detail)
    assert state.counts == {State.UNKNOWN: 4}, "never said to be done or running"
    submit(run_recipe, recipe, stand_in)
    assert wait(run, lambda state: state.ended).counts == {State.DONE: 4}


def test_a_stage_waits_for_those_it_needs_and_does_not_start_when_one_failed(
    run_recipe: Recipe, stand_in: Path, work: Path
) -> None:
    stage = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    stages = {
        "first": stage | {"grid": {"seed": [1, 2]}},
        "second": stage | {"needs": ["first"], "grid": {"seed": [3]}},
    }
    (work / "two.yaml").write_text(json.dumps({"name": "two", "stages": stages}))
    run = submit(run_recipe, work / "two.yaml", stand_in, env={"STAND_IN_FAIL": "2"})
    state = wait(run, lambda state: state.ended)
    assert [trial.state for trial in state.trials] == [State.DONE, State.FAILED, State.BLOCKED]
    assert state.trials[2].detail == f"needs first, whose trial {state.trials[1].id} has no result"
    assert not state.trials[2].attempts, "that was no attempt"
    submit(run_recipe, work / "two.yaml", stand_in)
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.DONE: 3}
    ends = {trial.stage: trial.result["ended"] for trial in state.trials}
    assert ends["first"] < ends["second"] - 0.2


def test_a_directory_of_slots_that_is_somebody_elses_is_refused_before_anything_is_queued(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 2**20 + 1)
    with pytest.raises(ConfigError, match=r"belongs to .*; set TMPDIR to another directory"):
        LocalBackend(work).check([])


def test_slots_come_back_when_their_holder_lets_go(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "machine_gpus", lambda: ("0", "1"))
    monkeypatch.setattr(slots.tempfile, "gettempdir", lambda: str(work))
    first = slots.take(1, 2)
    assert first is not None
    assert first.gpus == ("0", "1")
    assert slots.take(1, 1) is None, "no GPU is left"
    cpus = len(os.sched_getaffinity(0))
    assert cpus == 1 or slots.take(cpus, 0) is None, "the processor of the failed attempt was given back, one is taken"
    first.release()
    everything = slots.take(10_000, 2)
    assert everything is not None, "more processors than there are means all of them"
    everything.release()
