"""Pipelines on this machine, with a stand-in for training: what needs what, and what is made again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm.rundir import RunDir, find_run
from slurm.state import RunState, State, run_state
from slurm.submissions import read_submissions
from tests.slurm.backends.test_local import wait, wait_queue

Recipe = Callable[..., subprocess.CompletedProcess[str]]
DONE, STALE, BLOCKED, CANCELLED = State.DONE, State.STALE, State.BLOCKED, State.CANCELLED


@pytest.fixture
def pipeline(work: Path) -> Path:
    """A recipe of three stages: one trial, one that needs it, and two that need that."""
    stage: dict[str, Any] = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    stages = {
        "pretrain": stage | {"grid": {"seed": [1]}, "env": {"STAND_IN_STEPS": "{{ env.STEPS | default('4') }}"}},
        "export": stage | {"needs": ["pretrain"], "grid": {"seed": [2]}},
        "glue": stage | {"needs": ["export"], "grid": {"seed": [3, 4]}},
    }
    (work / "p.yaml").write_text(json.dumps({"name": "p", "stages": stages}))
    return work / "p.yaml"


@pytest.fixture
def run(pipeline: Path, run_recipe: Recipe, stand_in: Path, work: Path) -> RunDir:
    """That recipe, all of it done."""
    done = run_recipe("submit", pipeline, "--cluster", stand_in, "--wait")
    assert done.returncode == 0, done.stderr
    found = find_run(work / "runs", None)
    wait_queue(found)
    return found


def states(state: RunState) -> list[State]:
    return [trial.state for trial in state.trials]


def test_after_a_result_was_removed_all_that_was_made_from_it_is_made_again_in_order(
    run: RunDir, run_recipe: Recipe, pipeline: Path, stand_in: Path
) -> None:
    before = {trial.id: trial.result["ended"] for trial in run_state(run).trials}
    pretrain, export, glue, _ = (trial.id for trial in run_state(run).trials)
    run.trial(pretrain).result.unlink()
    assert "3 stale" in run_recipe("status").stdout
    assert "3 to run" not in (text := run_recipe("plan", pipeline, "--cluster", stand_in).stdout)
    assert "4 trials: 4 to run, 0 skipped" in text
    assert text.count("to run: stale") == 3
    table = json.loads(run_recipe("results", "--format", "json").stdout)
    assert [row["missing"] for row in table] == ["1 unknown", "1 stale", "2 stale"], "told, and in no mean"
    done = run_recipe("submit", pipeline, "--cluster", stand_in, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {trial.id: trial.result["ended"] for trial in run_state(run).trials}
    assert all(after[id] > before[id] for id in before)
    assert after[pretrain] < after[export] < after[glue]
    assert all(trial.result["started_at"] == 0 for trial in run_state(run).trials[1:]), "from the beginning"
    assert json.loads((run.trial(glue).stale(1) / "result.json").read_text())["ended"] == before[glue]
    wait_queue(run)
    assert "nothing to submit" in run_recipe("submit", pipeline, "--cluster", stand_in).stdout


def test_a_stale_result_is_out_of_the_way_before_its_trial_runs_again(
    run: RunDir, run_recipe: Recipe, pipeline: Path, stand_in: Path
) -> None:
    """Cancelled before that, its trial has no result, and nothing that needs it can start from the old one."""
    pretrain, export, *glue = (trial.id for trial in run_state(run).trials)
    run.trial(pretrain).result.unlink()
    run_recipe("submit", pipeline, "--cluster", stand_in, env={"STEPS": "400"})
    assert not run.trial(export).result.exists()
    assert "cancelled 4 array tasks" in run_recipe("cancel", run.path).stdout
    state = wait(run, lambda state: state.ended)
    assert states(state) == [CANCELLED] * 4
    assert all((run.trial(id).stale(1) / "result.json").exists() for id in (export, *glue))
    refused = run_recipe("retry", "--trial", glue[0])
    assert refused.returncode == 2


def test_a_trial_cannot_be_retried_alone_while_what_it_needs_is_not_done(
    run_recipe: Recipe, pipeline: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", pipeline, "--cluster", stand_in, env={"STEPS": "400"})
    run = find_run(work / "runs", None)
    wait(run, lambda state: bool(state.trials[0].progress))
    run_recipe("cancel")
    pretrain, export, glue, other = (trial.id for trial in wait(run, lambda state: state.ended).trials)
    refused = run_recipe("retry", "p", "--trial", glue)
    assert refused.returncode == 2
    assert f"needs stage export, whose trial {export} has no result (and 1 more)" in refused.stderr
    command = f"recipe retry {run.path.name} --trial {glue} --trial {export} --trial {pretrain}"
    assert command in refused.stderr
    assert not (run.trial(glue).path / "logs").exists(), "nothing was queued"
    assert run_recipe(*command.split()[1:]).returncode == 0
    state = wait(run, lambda state: state.ended)
    assert states(state) == [DONE, DONE, DONE, CANCELLED]
    assert run_recipe("retry", "p", "--trial", other).returncode == 0, "now it can"
    assert states(wait(run, lambda state: state.ended)) == [DONE] * 4


def test_what_an_earlier_version_made_of_an_unfinished_pretraining_does_not_stay(
    run: RunDir, run_recipe: Recipe, pipeline: Path, stand_in: Path
) -> None:
    pretrain, *rest = run_state(run).trials
    shutil.rmtree(run.path / "needs")
    for trial in rest:
        lines = run.trial(trial.id).attempts.read_text().splitlines()
        start = {key: value for key, value in json.loads(lines[0]).items() if key not in ("needs", "inputs")}
        run.trial(trial.id).attempts.write_text("\n".join([json.dumps({**start, "start": 1e9}), *lines[1:], ""]))
    run.trial(pretrain.id).result.unlink()
    assert states(run_state(run))[1:] == [STALE] * 3
    assert run_recipe("retry", "--trial", pretrain.id).returncode == 0
    state = wait(run, lambda state: state.ended)
    assert states(state) == [DONE, STALE, STALE, STALE], "the pretraining is done, and they are still of before"
    assert run_recipe("submit", pipeline, "--cluster", stand_in, "--wait").returncode == 0
    assert all(trial.result["started_at"] == 0 for trial in run_state(run).trials[1:])


def test_what_waits_for_a_cancelled_trial_is_cancelled_with_it(
    run_recipe: Recipe, pipeline: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", pipeline, "--cluster", stand_in, env={"STEPS": "400"})
    run = find_run(work / "runs", None)
    pretrain = wait(run, lambda state: bool(state.trials[0].progress)).trials[0].id
    done = run_recipe("cancel", "--trial", pretrain)
    assert "cancelled 4 array tasks" in done.stdout
    assert "3 of them waited for the others" in done.stdout
    assert states(wait(run, lambda state: state.ended)) == [CANCELLED] * 4


def test_a_failure_blocks_what_needs_it_and_one_submission_mends_all(
    run_recipe: Recipe, pipeline: Path, stand_in: Path, work: Path
) -> None:
    done = run_recipe("submit", pipeline, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "1"})
    assert done.returncode == 1, "--wait tells that something is not done"
    run = find_run(work / "runs", None)
    pretrain, export, *_ = run_state(run).trials
    assert states(run_state(run)) == [State.FAILED, BLOCKED, BLOCKED, BLOCKED]
    status = run_recipe("status").stdout
    assert f"needs pretrain, whose trial {pretrain.id} has no result" in status
    assert f"needs export, whose trial {export.id} has no result" in status
    assert "not started" in run_recipe("logs", "--trial", export.id).stdout
    assert run_recipe("retry", "--trial", pretrain.id).returncode == 0
    state = wait(run, lambda state: state.ended)
    assert states(state) == [DONE, BLOCKED, BLOCKED, BLOCKED]
    assert "`recipe submit` queues it" in state.trials[1].detail
    assert run_recipe("retry", "--watch").returncode == 2
    assert run_recipe("retry").returncode == 0
    assert states(wait(run, lambda state: state.ended)) == [DONE] * 4


def test_a_rendered_script_says_what_its_job_has_to_wait_for(
    run_recipe: Recipe, pipeline: Path, stand_in: Path
) -> None:
    done = run_recipe("render", pipeline, "--cluster", stand_in, "--stage", "export")
    assert "needs pretrain, which is not done: give sbatch --dependency=afterany:ID, the id of its job" in done.stderr
    run_recipe("submit", pipeline, "--cluster", stand_in, "--wait")
    assert "nothing to render" in run_recipe("render", pipeline, "--cluster", stand_in).stderr


def test_a_damaged_result_is_made_again_and_kept(
    run: RunDir, run_recipe: Recipe, pipeline: Path, stand_in: Path
) -> None:
    pretrain, *_ = run_state(run).trials
    run.trial(pretrain.id).result.write_text("{")
    assert "its files are damaged" in run_recipe("status").stdout
    assert run_recipe("submit", pipeline, "--cluster", stand_in, "--wait").returncode == 0
    assert states(run_state(run)) == [DONE] * 4
    assert (run.trial(pretrain.id).stale(1) / "result.json").read_text() == "{"


def test_what_waits_for_several_is_queued_anew_when_one_of_them_is_retried(
    run_recipe: Recipe, stand_in: Path, work: Path
) -> None:
    """The other that failed may be retried later: until then it does not stand in the way."""
    stage: dict[str, Any] = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    first = stage | {"grid": {"seed": [1, 2, 3]}, "env": {"STAND_IN_STEPS": "9999", "STAND_IN_FAIL_EARLY": "1 2"}}
    stages = {"first": first, "second": stage | {"needs": ["first"], "grid": {"seed": [4]}}}
    (work / "s.yaml").write_text(json.dumps({"name": "s", "stages": stages}))
    run_recipe("submit", work / "s.yaml", "--cluster", stand_in)
    run = find_run(work / "runs", None)
    one, two, *_ = wait(run, lambda state: state.counts[State.FAILED] == 2).trials
    for trial in (one, two):
        (run.trial(trial.id).path / "mended").touch()
        done = run_recipe("retry", "s", "--trial", trial.id)
        assert done.stdout.count("1 task") == 2, done.stdout + done.stderr
        *_, upstream, waiting = (str(job.id) for job in read_submissions(run))
        assert json.loads((run.queue / waiting / "job.json").read_text())["after"] == ["local-1", upstream]
    assert run_recipe("cancel").returncode == 0
    wait_queue(run)
