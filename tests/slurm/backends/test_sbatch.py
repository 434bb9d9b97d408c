"""The launcher on a real Slurm; a stand-in takes the place of training."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from slurm.backends.sbatch import find_job_id, for_submission, parse_job
from slurm.cluster import Profile
from slurm.rundir import RunDir, find_run, read_log
from slurm.state import RunState, State, run_state
from tests.account import without_account
from tests.cluster import Cluster

Recipe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def slurm(plain_cluster: Cluster, work: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile for the test cluster with the stand-in for Python; SLURM_CONF points to that cluster."""
    for key, value in plain_cluster.env.items():
        monkeypatch.setenv(key, value)
    local = json.loads(stand_in.read_text())
    profile = work / "cluster.yaml"
    profile.write_text(json.dumps({"backend": "sbatch", "partition": "main", "python": local["python"]}))
    return profile


def wait(run: RunDir, until: Callable[[RunState], bool] = lambda state: state.ended, seconds: float = 60) -> RunState:
    deadline = time.monotonic() + seconds
    while not until(state := run_state(run)):
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return state


def newest(work: Path) -> RunDir:
    return find_run(work / "runs", None)


def submit(run_recipe: Recipe, recipe: Path, profile: Path, *options: str, env: dict[str, str] | None = None) -> RunDir:
    done = run_recipe("submit", recipe, "--cluster", profile, *options, env=env)
    assert done.returncode == 0, done.stderr
    return newest(Path.cwd())


def test_a_sweep_is_one_array_and_every_trial_gets_its_result(run_recipe: Recipe, recipe: Path, slurm: Path) -> None:
    run = submit(run_recipe, recipe, slurm)
    state = wait(run)
    assert state.counts == {State.DONE: 4}
    jobs = [json.loads(line) for line in run.submissions.read_text().splitlines()]
    assert len({job["id"] for job in jobs if job["id"]}) == 1
    assert state.trials[0].result["environment"]["OMP_NUM_THREADS"] == "1"
    results = run_recipe("results", "--format", "json")
    assert [row["done"] for row in json.loads(results.stdout)] == ["2/2", "2/2"]


def test_a_rendered_script_works_in_a_pipe_to_sbatch_and_its_run_is_followed(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path
) -> None:
    command = f"{sys.executable} -m slurm.cli render {recipe} --cluster {slurm} | sbatch"
    piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert re.search(r"Submitted batch job \d+", piped.stdout)
    run = newest(work)
    assert not run_state(run).counts[State.NEW], "status sees them at once"
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", slurm).stdout
    assert wait(run).counts == {State.DONE: 4}


def test_a_run_directory_with_blanks_and_accents_works(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path
) -> None:
    done = run_recipe("submit", recipe, "--cluster", slurm, "--runs", "my rüns")
    assert done.returncode == 0, done.stderr
    run = find_run(work / "my rüns", None)
    assert wait(run).counts == {State.DONE: 4}
    assert len(list(run.path.glob("stages/glue/*/logs/*.out"))) == 4, "Slurm's own output lies where it should"


def test_more_tasks_than_maxarraysize_become_several_arrays(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path
) -> None:
    profile = json.loads(slurm.read_text()) | {"limits": {"max_array_size": 3}}
    slurm.write_text(json.dumps(profile))
    run = submit(run_recipe, recipe, slurm)
    assert wait(run).counts == {State.DONE: 4}
    assert sorted(path.name for path in run.path.glob("stages/glue/*/*.sh")) == ["job-0.sh", "job-1.sh"]


def test_packed_trials_share_an_array_task(run_recipe: Recipe, recipe: Path, slurm: Path) -> None:
    run = submit(run_recipe, recipe, slurm, "--set", "array.pack=3", env={"STAND_IN_FAIL": "2"})
    state = wait(run)
    assert [trial.state for trial in state.trials] == [State.DONE, State.FAILED, State.DONE, State.FAILED]
    jobs = {json.loads(run.trial(t.id).attempts.read_text().splitlines()[0])["job"][-2:] for t in state.trials}
    assert jobs == {"_0", "_1"}


def test_slurms_refusal_is_shown_and_the_same_run_can_be_submitted_again(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path
) -> None:
    good = slurm.read_text()
    slurm.write_text(json.dumps(json.loads(good) | {"partition": "nosuch"}))
    done = run_recipe("submit", recipe, "--cluster", slurm)
    assert done.returncode == 2
    assert "sbatch refused the job: " in done.stderr
    assert "invalid partition specified: nosuch" in done.stderr
    refused = newest(work)
    slurm.write_text(good)
    assert submit(run_recipe, recipe, slurm) == refused
    assert wait(refused).counts == {State.DONE: 4}


def test_cancelled_trials_are_not_requeued_and_go_on_when_submitted_again(
    run_recipe: Recipe, recipe: Path, slurm: Path
) -> None:
    run = submit(run_recipe, recipe, slurm, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "400"})
    wait(run, lambda state: any((trial.progress.get("step") or 0) > 3 for trial in state.trials))
    assert "cancelled 4 array tasks" in run_recipe("cancel").stdout
    state = wait(run)
    assert state.counts == {State.CANCELLED: 4}, "this cluster keeps no accounts, but we do"
    submit(run_recipe, recipe, slurm)
    state = wait(run)
    assert state.counts == {State.DONE: 4}
    assert state.trials[0].result["started_at"] > 3


def test_a_warning_signal_makes_one_array_task_checkpoint_and_requeue_alone(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    run = submit(run_recipe, recipe, slurm, env={"STAND_IN_STEPS": "60"})
    wait(run, lambda state: (state.trials[1].progress.get("step") or 0) > 3)
    job = json.loads(run.submissions.read_text().splitlines()[-1])["id"]
    plain_cluster.run(["scancel", "--signal=USR2", f"{job}_1"])
    state = wait(run, seconds=90)
    assert state.counts == {State.DONE: 4}
    assert [trial.attempts for trial in state.trials] == [1, 2, 1, 1]
    assert state.trials[1].result["started_at"] > 3


def test_a_task_that_is_preempted_while_it_starts_comes_back(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    """A job that is too short for a warning of its own gets SIGTERM, which nothing may catch yet."""
    slurm.write_text(json.dumps(json.loads(slurm.read_text()) | {"partition": "low"}))
    run = submit(
        run_recipe, recipe, slurm, "--set", "resources.time=00:04:00", "--set", "grid.seed=[1]", "--set",
        "grid.task_name=[rte]", env={"STAND_IN_START_SECONDS": "60"},
    )  # fmt: skip
    wait(run, lambda state: (run.trial(state.trials[0].id).path / "started").exists())
    node = read_log(run.trial(run_state(run).trials[0].id).attempts)[0]["node"]
    rival = plain_cluster.submit(
        [f"--nodelist={node}", "--exclusive", "--time=5", "--output=/dev/null", "--wrap=sleep 2"]
    )
    plain_cluster.wait_for_job(rival, "RUNNING", timeout=60)
    state = wait(run)
    assert (state.counts, state.trials[0].attempts) == ({State.DONE: 1}, 2), state


def test_a_stage_starts_when_those_it_needs_are_done(
    run_recipe: Recipe, slurm: Path, work: Path, plain_cluster: Cluster
) -> None:
    stage = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    stages = {
        "first": stage | {"grid": {"seed": [1, 2]}},
        "second": stage | {"needs": ["first"], "grid": {"seed": [3]}},
    }
    (work / "two.yaml").write_text(json.dumps({"name": "two", "stages": stages, "resources": {"mem": "100M"}}))
    run = submit(run_recipe, work / "two.yaml", slurm, env={"STAND_IN_FAIL": "2"})
    state = wait(run)
    assert [trial.state for trial in state.trials][:2] == [State.DONE, State.FAILED]
    assert not state.trials[2].attempts, "one that it needs failed"
    submit(run_recipe, work / "two.yaml", slurm)
    state = wait(run, lambda state: state.counts[State.DONE] == 3)
    ends = {trial.stage: trial.result["ended"] for trial in state.trials}
    assert ends["first"] < ends["second"]


def test_a_thousand_trials_are_one_submit_rpc(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    def submissions() -> int:
        text = plain_cluster.run(["sdiag"])
        found = re.search(r"REQUEST_SUBMIT_BATCH_JOB\s*\(\s*\d+\)\s*count:(\d+)", text)
        return int(found[1]) if found else 0

    before = submissions()
    submit(run_recipe, recipe, slurm, "--set", "grid.seed={{ range(500) }}", "--set", "array.parallel=1")
    assert submissions() == before + 1
    cancelled = re.search(r"cancelled (\d+) array tasks", run_recipe("cancel").stdout)
    assert cancelled
    assert int(cancelled[1]) > 950, "some may have run by then"


def test_submitted_again_at_once_after_a_cancel_nothing_is_left_out(
    run_recipe: Recipe, recipe: Path, slurm: Path
) -> None:
    run = submit(run_recipe, recipe, slurm, env={"STAND_IN_STEPS": "400", "STAND_IN_SAVE_SECONDS": "2"})
    wait(run, lambda state: all((trial.progress.get("step") or 0) > 1 for trial in state.trials))
    assert "4 of them ran" in run_recipe("cancel").stdout
    done = run_recipe("submit", recipe, "--cluster", slurm)
    assert "waiting for" in done.stderr
    assert "(4 tasks)" in done.stdout
    state = wait(run)
    assert state.counts == {State.DONE: 4}
    assert all(trial.result["started_at"] > 1 for trial in state.trials)


def test_inside_another_job_a_submission_is_like_any_other(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path, plain_cluster: Cluster
) -> None:
    """That job's own task number and memory must not become those of the new jobs."""
    command = f"{sys.executable} -m slurm.cli submit {recipe} --cluster {slurm}"
    inner = (
        f"{command} --set grid.seed=[1] --set name=one --unset grid.task_name --set config.task_name=rte && {command}"
    )
    plain_cluster.submit(["--array=5", "--mem-per-cpu=50", f"--output={work}/outer.txt", "--wrap", inner])
    deadline = time.monotonic() + 60
    while len(list(work.glob("runs/*/*/submissions.jsonl"))) < 2:
        assert time.monotonic() < deadline, (work / "outer.txt").read_text()
        time.sleep(0.2)
    assert wait(find_run(work / "runs", "one")).counts == {State.DONE: 1}
    assert wait(find_run(work / "runs", "sweep")).counts == {State.DONE: 4}


@pytest.mark.parametrize("step", ["", "srun --ntasks=1 --nodes=1 "], ids=["salloc", "srun in salloc"])
def test_a_script_that_is_piped_to_sbatch_inside_an_allocation_asks_srun_for_nothing_of_that_one(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path, plain_cluster: Cluster, step: str
) -> None:
    """An allocation leaves GPUs, tasks, memory and more in the environment, all of which srun reads as options."""
    command = f"{sys.executable} -m slurm.cli"
    one = "--set grid.seed=[1] --set name=one --unset grid.task_name --set config.task_name=rte"
    inner = f"{command} render {recipe} --cluster {slurm} {one} | sbatch && {command} submit {recipe} --cluster {slurm}"
    asked = ["--nodes=2", "--gpus-per-node=2", "--ntasks-per-node=2", "--cpus-per-task=4", "--mem-per-cpu=50",
             "--gpu-bind=single:1", "--overcommit", "--hint=nomultithread", "--time=5"]  # fmt: skip
    plain_cluster.run(["salloc", *asked, "bash", "-c", f"{step}bash -c '{inner}'"], timeout=120)
    for name, trials in (("one", 1), ("sweep", 4)):
        state = wait(find_run(work / "runs", name))
        assert state.counts == {State.DONE: trials}, state


def test_a_stage_waits_for_the_trials_that_are_run_again_and_for_those_that_still_run(
    run_recipe: Recipe, slurm: Path, work: Path
) -> None:
    stage = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    first = stage | {"grid": {"seed": [1, 2]}, "env": {"STAND_IN_STEPS": "150", "STAND_IN_FAIL_EARLY": "2"}}
    stages = {"first": first, "second": stage | {"needs": ["first"], "grid": {"seed": [3]}}}
    (work / "two.yaml").write_text(json.dumps({"name": "two", "stages": stages, "resources": {"mem": "100M"}}))
    run = submit(run_recipe, work / "two.yaml", slurm)
    wait(run, lambda state: state.trials[1].state is State.FAILED)
    (run.trial(run_state(run).trials[1].id).path / "mended").touch()
    done = run_recipe("submit", work / "two.yaml", "--cluster", slurm)
    assert done.stdout.count("1 task") == 2, done.stdout + done.stderr
    state = wait(run, lambda state: state.counts[State.DONE] == 3)
    ends = sorted((trial.result["ended"], trial.stage) for trial in state.trials)
    assert ends[-1][1] == "second"


def test_a_rendered_script_that_was_piped_twice_is_cancelled_with_both_jobs(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    script = run_recipe("render", recipe, "--cluster", slurm, "--set", "array.parallel=1").stdout
    for _ in range(2):
        subprocess.run(
            ["sbatch"], input=script, text=True, check=True, env={**plain_cluster.env, "STAND_IN_STEPS": "900"}
        )
    assert "cancelled 8 array tasks" in run_recipe("cancel").stdout
    plain_cluster.wait_idle()
    assert run_state(newest(Path.cwd())).counts == {State.CANCELLED: 4}, "their ids were noted when they were seen"


def test_options_in_the_environment_change_neither_jobs_nor_questions(
    run_recipe: Recipe, recipe: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"SBATCH_JOB_NAME": "x", "SBATCH_TIMELIMIT": "1", "SBATCH_WAIT": "1", "SBATCH_EXPORT": "NONE",
               "SBATCH_PARTITION": "low", "SQUEUE_STATES": "S", "SQUEUE_PARTITION": "low"}  # fmt: skip
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    run = submit(run_recipe, recipe, slurm, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "4000"})
    assert run_state(run).counts[State.UNKNOWN] == 0, "the queue shows the jobs"
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", slurm).stdout
    assert "cancelled 4 array tasks" in run_recipe("cancel").stdout
    wait(run)


def test_a_user_without_an_account_here_sees_what_is_queued(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster, work: Path
) -> None:
    """squeue refuses such a uid with exit status 0 and an empty list."""
    submit(run_recipe, recipe, slurm, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "200"})
    paths = {"PYTHONPATH": str(Path(__file__).parents[3]), "SLURM_CONF": plain_cluster.env["SLURM_CONF"]}
    command = without_account(sys.executable, "-m", "slurm.cli", "status", **paths)
    shown = subprocess.run(command, cwd=work, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "unknown" not in shown.stdout
    assert "pending" in shown.stdout
    assert "cancelled 4 array tasks" in run_recipe("cancel").stdout


def test_the_defaults_of_a_site_hold_where_the_profile_says_nothing() -> None:
    def kept(**profile: str) -> dict[str, str]:
        job = SimpleNamespace(profile=Profile(backend="sbatch", **profile))
        return for_submission({"SBATCH_ACCOUNT": "a", "SBATCH_QOS": "q", "SBATCH_TIMELIMIT": "1", "HOME": "/h"}, job)

    assert kept() == {"SBATCH_ACCOUNT": "a", "SBATCH_QOS": "q", "HOME": "/h"}
    assert kept(account="nlp") == {"SBATCH_QOS": "q", "HOME": "/h"}


@pytest.mark.parametrize(
    ("answer", "job_id"),
    [
        ("77\n", "77"),
        ("77;gpus\n", "77"),
        ("Note: /scratch is purged on Monday\n77\nYour project has 3 days left\n", "77"),
        ("\x1b[33mwelcome\x1b[0m\n\x1b[1m77\x1b[0m\r\n", "77"),
        ("", None),
        ("\n \n", None),
        ("job 77 is queued\n", None),
        ("2026\n77\n", None),
    ],
)
def test_the_jobs_number_is_the_only_line_of_its_form(answer: str, job_id: str | None) -> None:
    assert find_job_id(answer) == job_id


def test_a_users_text_at_the_end_of_scontrols_line_is_not_taken_for_the_jobs_state() -> None:
    """Slurm 25.11 adds the whole command line."""
    line = "JobId=5 JobState=TIMEOUT TimeLimit=00:01:00 SubmitLine=sbatch --comment JobState=RUNNING TimeLimit=1 x.sh"
    fields = parse_job(line)
    assert (fields["JobState"], fields["TimeLimit"]) == ("TIMEOUT", "00:01:00")


def with_wrapped_sbatch(work: Path, answer: str) -> dict[str, str]:
    """A PATH with a wrapper of the site that swallows the job's number, as a lost connection may."""
    (work / "bin").mkdir()
    (work / "bin/sbatch").write_text(f'#!/bin/bash\n{shutil.which("sbatch")} "$@" >/dev/null; echo "{answer}"\n')
    (work / "bin/sbatch").chmod(0o755)
    return {"PATH": f"{work}/bin:{os.environ['PATH']}"}


def test_submitit_without_a_number_ends_with_one_message(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path
) -> None:
    path = with_wrapped_sbatch(work, "welcome")
    done = run_recipe("submit", recipe, "--cluster", slurm, "--backend", "submitit", env=path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: Could not make sense of sbatch output "welcome')
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("answer", ["", "welcome to the cluster"])
def test_when_sbatch_names_no_job_what_is_queued_is_adopted_later(
    run_recipe: Recipe, recipe: Path, slurm: Path, work: Path, answer: str
) -> None:
    done = run_recipe("submit", recipe, "--cluster", slurm, env=with_wrapped_sbatch(work, answer))
    assert done.returncode == 2
    printed = repr(answer) if answer else "nothing"
    assert done.stderr.startswith(f"error: sbatch printed {printed} instead of a line with the job's number.")
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", slurm).stdout
    assert wait(newest(work)).counts == {State.DONE: 4}


@pytest.fixture
def with_accounts(cluster: Cluster, work: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile for the cluster with accounting."""
    for key, value in cluster.env.items():
        monkeypatch.setenv(key, value)
    profile = work / "cluster.yaml"
    python = json.loads(stand_in.read_text())["python"]
    profile.write_text(json.dumps({"backend": "sbatch", "partition": "main", "python": python}))
    return profile


def test_an_array_that_never_left_the_queue_is_told_as_cancelled(run_recipe: Recipe, slurm: Path, work: Path) -> None:
    check_array_that_never_left_the_queue(run_recipe, slurm, work)


def test_an_array_that_never_left_the_queue_is_told_as_cancelled_by_accounts_too(
    run_recipe: Recipe, with_accounts: Path, work: Path
) -> None:
    check_array_that_never_left_the_queue(run_recipe, with_accounts, work)


def check_array_that_never_left_the_queue(run_recipe: Recipe, profile: Path, work: Path) -> None:
    """Slurm tells of all of its tasks in one line, with and without accounts."""
    stage = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
        "grid": {"seed": [1, 2]},
    }
    stages = {"first": stage, "second": stage | {"needs": ["first"], "grid": {"seed": [3, 4]}}}
    resources = {"time": "00:10:00", "mem": "100M"}
    recipe = work / "stages.yaml"
    recipe.write_text(json.dumps({"name": "stages", "resources": resources, "stages": stages}))
    run = submit(run_recipe, recipe, profile, env={"STAND_IN_STEPS": "400"})
    waiting = [row["id"] for row in read_log(run.submissions) if row["id"]][-1]
    subprocess.run(["scancel", waiting], check=True)
    state = wait(run, lambda state: state.counts[State.CANCELLED] == 2)
    assert not state.ended
    assert "cancelled 2 array tasks" in run_recipe("cancel").stdout
    assert wait(run).counts == {State.CANCELLED: 4}
