"""The three doors lead to the same result: sbatch, submitit, and `apptainer exec` here and now."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import Recipe
from slurm.rundir import TrialDir
from slurm.state import State
from tests.survival.conftest import Site, same, wait_until, weights

STEPS = 100


@pytest.fixture
def by_sbatch(site: Site) -> Site:
    site.submit(site.recipe(seeds=(1, 2), steps=STEPS))
    assert site.wait_ended().counts == {State.DONE: 2}, site.log()
    return site


@pytest.mark.usefixtures("cpu_image")
def test_exec_gives_the_result_of_the_job(by_sbatch: Site, reference: Callable[..., TrialDir]) -> None:
    site, recipe, profile = by_sbatch, by_sbatch.work / "sweep.yaml", by_sbatch.work / "site.yaml"
    job = json.loads(site.files(1).result.read_text())
    before = weights(site.files(1), STEPS)
    assert same(before, weights(reference(seed=2, steps=STEPS), STEPS)), "nor does the container make a difference"

    site.call("exec", recipe, "--cluster", profile, "--trial", 1)
    (result,) = (site.work / "runs/sweep/exec").glob("*/trials/*/result.json")
    assert json.loads(result.read_text())["metrics"]["loss"] == job["metrics"]["loss"]
    assert same(before, weights(TrialDir(result.parent), STEPS))


def test_submitit_gives_the_result_of_the_job(by_sbatch: Site) -> None:
    site, recipe, profile = by_sbatch, by_sbatch.work / "sweep.yaml", by_sbatch.work / "site.yaml"
    job = json.loads(site.files(1).result.read_text())
    jobs = Recipe.load(recipe, cluster=str(profile), new=True).submit(backend="submitit")
    assert isinstance(jobs, list)
    results = [one.result() for one in jobs]
    assert [one["score"] for one in results] == [
        json.loads(site.files(place).result.read_text())["score"] for place in (0, 1)
    ]
    assert results[1]["metrics"]["loss"] == job["metrics"]["loss"]
    assert site.state().counts == {State.DONE: 2}, "the run is seen by `recipe status` like any other"

    again = Recipe.load(recipe, cluster=str(profile)).submit(backend="submitit")
    assert isinstance(again, list)
    assert [one.job_id for one in again] == [one.job_id for one in jobs], "nothing is left to do: these are its jobs"
    assert [one.result()["score"] for one in again] == [one["score"] for one in results]


@pytest.mark.usefixtures("cpu_image")
def test_the_printed_command_runs_when_it_is_pasted(site: Site) -> None:
    recipe = site.recipe(steps=20)
    printed = site.call("exec", recipe, "--cluster", site.site_file(), "--dry-run").stdout
    assert " apptainer exec " in printed
    assert not list(site.work.glob("runs/sweep/exec/*/trials/*/result.json")), "nothing ran so far"
    done = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(list(site.work.glob("runs/sweep/exec/*/trials/*/result.json"))) == 1


def test_another_command_and_a_shell_see_the_jobs_environment(site: Site, cpu_image: Path) -> None:
    profile = site.site_file(env={"NCCL_DEBUG": "WARN"}, secrets=["MY_TOKEN"])
    recipe = site.recipe(env={"MINE": "a b"})
    nasty = 'it\'s $(touch pwned) "x" \\ `id`'
    script = 'printf "%s\\n" "$NCCL_DEBUG" "$MINE" "$MY_TOKEN" "${OTHER_TOKEN-unset}" "${HOSTVAR-unset}" "$PWD"'
    words = [
        "env", f"MY_TOKEN={nasty}", "OTHER_TOKEN=x", "HOSTVAR=x", sys.executable, "-m", "slurm.cli", "exec",
        str(recipe), "--cluster", str(profile), "--", "bash", "-c", script,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.stdout.splitlines() == ["WARN", "a b", nasty, "unset", "unset", str(site.work)], done.stderr
    assert not (site.work / "pwned").exists()
    kept = subprocess.run(["grep", "-r", "touch pwned", str(site.work)], capture_output=True, text=True)
    assert kept.stdout == "", "the secret is in no file"
    shell = f"{sys.executable} -m slurm.cli shell {recipe} --cluster {profile}"
    typed = subprocess.run(
        ["script", "-qec", shell, "/dev/null"], input="echo in $APPTAINER_NAME with $MINE\nexit\n",
        capture_output=True, text=True, timeout=120, env={**os.environ, "MY_TOKEN": "t"},
    )  # fmt: skip
    assert f"in {cpu_image.name} with a b" in typed.stdout
    assert shlex.quote(str(site.work)) not in typed.stderr


def test_submitit_checkpoints_and_requeues_on_the_host(site: Site, reference: Callable[..., TrialDir]) -> None:
    recipe = site.recipe(steps=600)
    jobs = Recipe.load(recipe, cluster=str(site.site_file())).submit(backend="submitit")
    assert isinstance(jobs, list)
    site.wait_step(50)
    site.cluster.run(["scancel", "--signal=USR2", site.job()])
    wait_until(lambda: site.attempts() == 2, 60, lambda: site.log())
    assert jobs[0].result()["steps"] == 600
    assert same(weights(site.files(), 600), weights(reference(), 600))


def test_submitit_raises_with_the_trials_own_message_when_it_fails(site: Site) -> None:
    recipe = site.recipe({"data": {"dir": str(site.work / "data")}})
    (site.work / "data" / "RTE").mkdir(parents=True)
    jobs = Recipe.load(recipe, cluster=str(site.site_file())).submit(backend="submitit")
    assert isinstance(jobs, list)
    with pytest.raises(Exception, match=r"train\.tsv"):
        jobs[0].result()
    assert site.wait_ended().counts == {State.FAILED: 1}
