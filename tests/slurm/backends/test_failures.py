"""Failures in `recipe status` on a real Slurm: each log is that of the real script, srun and slurmstepd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from slurm.rundir import read_log
from slurm.state import RunState, State, TrialState, run_state
from tests.cluster import Cluster
from tests.slurm.backends.test_sbatch import newest, wait

FAILING = Path(__file__).parents[1] / "failing.py"
Submit = Callable[..., None]
FOUR = ["--set", "resources={nodes: 2, procs_per_node: 2, cpus: 2, mem: 200M, time: 00:10:00}"]


@pytest.fixture
def submit(cluster: Cluster, work: Path, recipe: Path, run_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Submits one trial whose processes fail as they are told, on the cluster with accounts."""
    for key, value in cluster.env.items():
        monkeypatch.setenv(key, value)
    python = work / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} {FAILING} "$@"\n')
    python.chmod(0o755)

    def submit(how: str, *options: str, rank: int = 0, **profile: Any) -> None:
        site = work / "cluster.yaml"
        site.write_text(json.dumps({"backend": "sbatch", "partition": "main", "python": str(python)} | profile))
        one = ["--set", "grid.seed=[1]", "--set", "grid.task_name=[rte]"]
        environment = {"FAIL_HOW": how, "FAIL_RANK": str(rank)}
        done = run_recipe("submit", recipe, "--cluster", site, *one, *options, env=environment)
        assert done.returncode == 0, done.stderr

    return submit


def ended(seconds: float = 90) -> TrialState:
    """The only trial, when it has ended and Slurm has told all that it knows."""

    def over(state: RunState) -> bool:
        return state.ended and not state.counts[State.UNKNOWN]

    return wait(newest(Path.cwd()), over, seconds).trials[0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("message", "exit code 2, attempt 1 on {node} (rank 3): bad row 3"),
        ("traceback", "exit code 1, attempt 1 on {node} (rank 3): ValueError: of rank 3"),
        ("kill", "killed by signal 9 (KILL) at step {step} of 3000 (likely out of memory, or by an administrator), "
                 "attempt 1 on {node} (rank 3)"),
        ("abort", "killed by signal 6 (ABRT) at step {step} of 3000, attempt 1 on {node} (rank 3)"),
    ],
)  # fmt: skip
def test_of_several_ranks_the_first_that_failed_is_told_with_its_node(submit: Submit, how: str, expected: str) -> None:
    submit(how, *FOUR, rank=3)
    trial = ended()
    files = newest(Path.cwd()).trial(trial.id)
    nodes = files.log(1).read_text().splitlines()[0].partition(" on ")[2].partition(",")[0].split()
    assert trial.state is State.FAILED
    step = json.loads(files.progress.read_text())["step"]
    assert trial.detail == expected.format(node=nodes[1], step=step)
    assert trial.attempts == 1, "what the others saved when they were ended is no reason to go on"


def test_a_single_process_that_was_killed_shows_no_line_of_progress(submit: Submit) -> None:
    submit("kill")
    assert ended().detail.startswith("killed by signal 9 (KILL) at step 4 of 3000 (likely out of memory, or by an ")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--nosuch", "srun: unrecognized option '--nosuch'"),
        ("--mem=900G", "srun: Unable to create step for job {job}: Memory required by task is not available"),
    ],
)
def test_a_step_that_srun_cannot_start_shows_its_own_error(submit: Submit, option: str, expected: str) -> None:
    submit("never", srun=[option])
    trial = ended()
    job = read_log(newest(Path.cwd()).submissions)[-1]["id"]
    assert trial.state is State.FAILED
    assert expected.format(job=job) in trial.detail


def test_a_module_that_is_missing_is_named_with_the_reason(submit: Submit) -> None:
    submit("never", modules=["cuda/12.4"])
    trial = ended()
    assert (trial.state, trial.attempts) == (State.FAILED, 0)
    assert trial.detail.startswith("the job failed (exit code 1): node")
    assert "cannot load the module cuda/12.4: there is no command 'module'" in trial.detail


@pytest.mark.slow_cluster  # the shortest time limit is one minute, which Slurm looks at every 30 s
def test_a_time_limit_is_told_with_the_step_and_the_next_command(submit: Submit) -> None:
    submit("never", "--set", "resources.time=1")
    trial = ended(150)
    step = json.loads(newest(Path.cwd()).trial(trial.id).progress.read_text())["step"]
    run = newest(Path.cwd()).path.relative_to(Path.cwd())
    expected = (
        f"time limit of 00:01:00 reached; saved a checkpoint at step {step} of 3000; continue with `recipe retry {run}`"
    )
    assert (trial.state, trial.detail) == (State.TIMEOUT, expected)


def test_a_node_that_is_not_fit_is_excluded_and_the_waiting_trial_says_why(submit: Submit, cluster: Cluster) -> None:
    submit("unfit-by-name", bad_nodes="exclude")
    run = newest(Path.cwd())
    waiting = wait(run, lambda state: "excluded" in state.trials[0].detail).trials[0]
    first = read_log(run.trial(waiting.id).attempts)[0]["node"]
    assert waiting.state is State.REQUEUED
    assert waiting.detail.endswith(f"; excluded {first}: no GPU of {first}")
    assert cluster.job(read_log(run.submissions)[-1]["id"])["ExcNodeList"] == first
    trial = ended()  # each of the four nodes has a complaint of its own
    assert (trial.state, trial.attempts) == (State.FAILED, 4)
    nodes = [row["node"] for row in read_log(run.trial(trial.id).attempts) if "node" in row]
    assert sorted(nodes) == ["node1", "node2", "node3", "node4"]
    assert trial.detail == f"bad start, and no other node is left: {nodes[3]}: no GPU of {nodes[3]} (here)"


def test_the_same_complaint_from_a_second_node_is_the_trials_own_fault(submit: Submit) -> None:
    submit("unfit", bad_nodes="exclude")
    trial = ended()
    assert (trial.state, trial.attempts) == (State.FAILED, 2)
    node = read_log(newest(Path.cwd()).trial(trial.id).attempts)[-2]["node"]
    assert trial.detail == f"bad start, as on another node before: {node}: no GPU (here)"


@pytest.mark.skipif("+cpu" not in version("torch"), reason="needs a PyTorch without GPU support")
def test_a_build_without_gpu_support_fails_at_once_and_no_node_is_excluded(submit: Submit) -> None:
    """The real start of a trial, on nodes that have GPUs as far as Slurm knows."""
    submit("never", "--set", "resources.gpus_per_node=2", "--set", "resources.cpus=2", "--set", "resources.mem=2G",
           bad_nodes="exclude", python=sys.executable)  # fmt: skip
    trial = ended(180)
    assert (trial.state, trial.attempts) == (State.FAILED, 1)
    assert trial.detail.startswith("bad start: 2 GPUs were asked for, 0 are visible: PyTorch ")
    assert "is built without GPU support. Use an image with a build for GPUs" in trial.detail


def test_the_command_shows_it(submit: Submit, work: Path) -> None:
    submit("message")
    ended()
    done = subprocess.run([sys.executable, "-m", "slurm.cli", "status"], capture_output=True, text=True, cwd=work)
    assert "bad row 0" in done.stdout
    assert run_state(newest(work)).counts == {State.FAILED: 1}
