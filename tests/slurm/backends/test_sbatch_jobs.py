"""Jobs on a real Slurm are known by their ids, whoever submitted them; stages wait for jobs, and start by results."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.rundir import RunDir, read_log
from slurm.state import State, run_state
from tests.cluster import Cluster
from tests.slurm.backends import test_sbatch
from tests.slurm.backends.test_sbatch import newest, submit, wait
from tests.slurm.conftest import RECIPE

Recipe = Callable[..., subprocess.CompletedProcess[str]]
slurm = test_sbatch.slurm  # the fixture
REPOSITORY = Path(__file__).resolve().parents[3]


def job_of(run: RunDir, place: int = -1) -> str:
    ids = [row["id"] for row in read_log(run.submissions) if row["id"]]
    return str(ids[place])


def test_a_job_whose_comment_and_name_were_changed_is_still_the_runs(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    run = submit(run_recipe, recipe, slurm, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "4000"})
    plain_cluster.run(["scontrol", "update", f"JobId={job_of(run)}", "Comment=site", "JobName=other"])
    assert run_state(run).counts[State.UNKNOWN] == 0
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", slurm).stdout
    assert "cancelled 4 array tasks" in run_recipe("cancel").stdout
    wait(run)
    assert len([row for row in read_log(run.submissions) if row["id"]]) == 1


def test_a_rendered_script_is_found_also_where_the_site_puts_its_own_comment(
    run_recipe: Recipe, recipe: Path, slurm: Path
) -> None:
    script = run_recipe("render", recipe, "--cluster", slurm, "--set", "array.parallel=1").stdout
    for _ in range(2):
        subprocess.run(["sbatch", "--hold", "--comment=site"], input=script, text=True, check=True, capture_output=True)
        assert run_state(newest(Path.cwd())).counts == {State.PENDING: 4}
    assert "nothing to submit" in run_recipe("submit", recipe, "--cluster", slurm).stdout
    assert "cancelled 8 array tasks" in run_recipe("cancel").stdout


def test_a_job_id_that_slurm_has_used_again_is_not_the_runs(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    """slurmctld has lost its state, and counts from the beginning."""
    run = submit(run_recipe, recipe, slurm, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "4000"})
    mine = job_of(run)
    plain_cluster.run(["scancel", mine])
    other = plain_cluster.submit(["--array=0-3", "--output=/dev/null", "--job-name=sweep.glue", "--wrap=sleep 100"])
    run.submissions.write_text(run.submissions.read_text().replace(f'"id": "{mine}"', f'"id": "{other}"'))
    assert not run_state(run).counts[State.RUNNING]
    assert not run_state(run).counts[State.PENDING]
    assert "nothing waits or runs" in run_recipe("cancel").stdout
    assert plain_cluster.job(f"{other}_0")["JobState"] in ("PENDING", "RUNNING")


def test_a_run_whose_jobs_slurm_has_forgotten_is_looked_at_as_ever(
    run_recipe: Recipe, recipe: Path, slurm: Path, plain_cluster: Cluster
) -> None:
    run = submit(run_recipe, recipe, slurm)
    wait(run)
    run.submissions.write_text(run.submissions.read_text().replace(f'"id": "{job_of(run)}"', '"id": "99999999"'))
    state = run_state(run)
    assert (state.counts, state.warning) == ({State.DONE: 4}, "")


# ------------------------------------------------------------------------------------------------------- stages


@pytest.fixture
def pipeline(work: Path) -> Callable[..., Path]:
    """A recipe of two stages, with settings of the first."""

    def write(**first: Any) -> Path:
        stage: dict[str, Any] = {
            "task": "glue",
            "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
        }
        stages = {
            "first": stage | {"grid": {"seed": [1, 2]}} | first,
            "second": stage | {"needs": ["first"], "grid": {"seed": [3, 4]}},
        }
        (work / "two.yaml").write_text(json.dumps({"name": "two", "stages": stages, "resources": {"mem": "100M"}}))
        return work / "two.yaml"

    return write


def test_a_stage_waits_while_jobs_that_it_needs_are_requeued(
    run_recipe: Recipe, slurm: Path, pipeline: Callable[..., Path], plain_cluster: Cluster
) -> None:
    run = submit(run_recipe, pipeline(env={"STAND_IN_STEPS": "60"}), slurm)
    wait(run, lambda state: (state.trials[1].progress.get("step") or 0) > 3)
    plain_cluster.run(["scancel", "--signal=USR2", f"{job_of(run, 0)}_1"])
    state = wait(run, seconds=90)
    assert state.counts == {State.DONE: 4}
    assert [trial.attempts for trial in state.trials] == [1, 2, 1, 1]


def test_slurms_verdict_on_a_job_does_not_matter_where_the_results_are_there(
    run_recipe: Recipe, slurm: Path, pipeline: Callable[..., Path], work: Path, plain_cluster: Cluster
) -> None:
    """As when a node's epilog fails: the trial has written its result, and the job counts as failed."""
    profile = json.loads(slurm.read_text())
    python = Path(profile["python"])
    python.with_name("fails").write_text(f'#!/bin/bash\n"{python}" "$@"\nexit ${{FAILS:-0}}\n')
    python.with_name("fails").chmod(0o755)
    slurm.write_text(json.dumps(profile | {"python": str(python.with_name("fails"))}))
    run = submit(run_recipe, pipeline(env={"FAILS": "3"}), slurm)
    assert wait(run).counts == {State.DONE: 4}
    assert plain_cluster.job(f"{job_of(run, 0)}_0")["JobState"] == "FAILED"


def test_a_job_that_slurm_starts_too_early_is_blocked_and_taken_up_again(
    run_recipe: Recipe, slurm: Path, pipeline: Callable[..., Path], work: Path, plain_cluster: Cluster
) -> None:
    recipe = pipeline(env={"STAND_IN_STEPS": "100"})
    rendered = run_recipe("render", recipe, "--cluster", slurm, "--stage", "second")
    subprocess.run(["sbatch"], input=rendered.stdout, text=True, check=True, capture_output=True)
    run = newest(work)
    state = wait(run, lambda state: state.counts[State.BLOCKED] == 2)
    assert not any(trial.attempts for trial in state.trials)
    plain_cluster.wait_idle()
    submit(run_recipe, recipe, slurm)
    state = wait(run)
    assert state.counts == {State.DONE: 4}
    ends = [(trial.result["ended"], trial.stage) for trial in state.trials]
    assert [stage for _, stage in sorted(ends)] == ["first", "first", "second", "second"]


def test_a_rendered_stage_is_told_which_jobs_to_wait_for(
    run_recipe: Recipe, slurm: Path, pipeline: Callable[..., Path], work: Path
) -> None:
    recipe = pipeline(env={"STAND_IN_STEPS": "100"})
    first = run_recipe("render", recipe, "--cluster", slurm, "--stage", "first").stdout
    piped = subprocess.run(["sbatch", "--parsable"], input=first, text=True, check=True, capture_output=True)
    second = run_recipe("render", recipe, "--cluster", slurm, "--stage", "second")
    option = f"--dependency=afterany:{piped.stdout.strip()}"
    assert f"this stage needs first, which is not done: give sbatch {option}" in second.stderr
    subprocess.run(["sbatch", option], input=second.stdout, text=True, check=True, capture_output=True)
    assert wait(newest(work)).counts == {State.DONE: 4}


def test_after_a_needed_job_was_cancelled_by_hand_the_rest_is_blocked_and_not_for_ever(
    run_recipe: Recipe, slurm: Path, pipeline: Callable[..., Path], plain_cluster: Cluster
) -> None:
    recipe = pipeline(env={"STAND_IN_STEPS": "400"})
    run = submit(run_recipe, recipe, slurm)
    wait(run, lambda state: (state.trials[0].progress.get("step") or 0) > 3)
    plain_cluster.run(["scancel", job_of(run, 0)])
    state = wait(run, lambda state: state.ended and state.counts[State.BLOCKED] == 2)
    assert "needs first, whose trial" in state.trials[2].detail
    submit(run_recipe, pipeline(), slurm)
    assert wait(run).counts == {State.DONE: 4}


# --------------------------------------------------------------------------------------------- two users, one run


class Pair:
    """Two users of one group share a directory of runs; each calls `recipe` as himself."""

    def __init__(self, names: tuple[str, str], group: int, place: Path, cluster: Cluster):
        self.names, self.group, self.place, self.cluster = names, group, place, cluster

    def call(self, name: str, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        # The capability to read all files, and no more: Python and the checkout may lie in root's own home.
        may_read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        user = ["setpriv", f"--reuid={name}", f"--regid={self.group}", "--clear-groups", *may_read]
        python = [sys.executable, "-m", "slurm.cli", *map(str, words)]
        environment = {
            **self.cluster.env, "PYTHONPATH": str(REPOSITORY), "HOME": str(self.place / f"home-{name}"),
            "TMPDIR": "/tmp", "XDG_CONFIG_HOME": str(self.place / "config"), **env,
        }  # fmt: skip
        return subprocess.run(
            [*user, *python], cwd=self.place / "shared", env=environment, umask=0o002, capture_output=True, text=True
        )

    def wait(self, name: str, text: str) -> None:
        """Until `recipe status` shows a text to that user."""
        deadline = time.monotonic() + 60
        while text not in (shown := self.call(name, "status").stdout):
            assert time.monotonic() < deadline, shown


@pytest.fixture
def pair(plain_cluster: Cluster) -> Iterator[Pair]:
    by_group: dict[int, list[str]] = {}
    for entry in pwd.getpwall():
        by_group.setdefault(entry.pw_gid, []).append(entry.pw_name)
    names = by_group.get(pwd.getpwnam("nobody").pw_gid, [])
    if len(names) < 2:
        pytest.skip("needs two users of one group, as nobody and _apt on Debian")
    place = plain_cluster.dir.with_name(f"{plain_cluster.dir.name}-users")
    subprocess.run(["rm", "-rf", str(place)], check=True)
    group = pwd.getpwnam("nobody").pw_gid
    two = ("nobody", next(name for name in names if name != "nobody"))
    for directory, owner in [("", "root"), ("shared", "nobody"), *((f"home-{name}", name) for name in two)]:
        (place / directory).mkdir()
        os.chown(place / directory, pwd.getpwnam(owner).pw_uid, group)
        (place / directory).chmod(0o2775 if directory == "shared" else 0o755)
    python = place / "python"
    result = '{"task": "glue", "score": 0.5, "metric": "accuracy", "metrics": {"accuracy": 0.5}}'
    python.write_text(
        '#!/bin/bash\nwhile [[ $1 != --output-dir ]]; do shift; done\ntouch "$2/started"\n'
        f"while [[ ! -e {place}/shared/go ]]; do sleep 0.1; done\necho '{result}' > \"$2/result.json\"\n"
    )
    python.chmod(0o755)
    profile = {"backend": "sbatch", "partition": "main", "python": str(python)}
    (place / "shared/site.yaml").write_text(json.dumps(profile))
    (place / "shared/sweep.yaml").write_text(RECIPE)
    yield Pair(two, group, place, plain_cluster)
    plain_cluster.cancel_all()
    plain_cluster.wait_idle()
    subprocess.run(["rm", "-rf", str(place)], check=True)


def test_two_users_share_a_run(pair: Pair) -> None:
    a, b = pair.names
    done = pair.call(a, "submit", "sweep.yaml", "--cluster", "site.yaml", "--set", "array.parallel=2")
    assert done.returncode == 0, done.stderr
    (run,) = (RunDir(path.parent) for path in (pair.place / "shared").glob("runs/sweep/*/manifest.jsonl"))
    pair.wait(b, "2 running, 2 pending")
    again = pair.call(b, "submit", "sweep.yaml", "--cluster", "site.yaml")
    assert "nothing to submit" in again.stdout, again.stderr
    refused = pair.call(b, "cancel")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert f"of {a} cannot be cancelled by {b}: scancel failed" in refused.stderr
    assert "Access/permission denied" in refused.stderr
    more = pair.call(b, "submit", "sweep.yaml", "--cluster", "site.yaml", "--set", "grid.seed=[1, 2, 3]")
    assert "(2 tasks)" in more.stdout, more.stderr
    refused = pair.call(b, "cancel")
    assert f"of {a} cannot be cancelled by {b}" in refused.stderr
    pair.wait(a, "2 running, 2 pending, 2 cancelled")
    (pair.place / "shared/go").touch()
    options = ("sweep.yaml", "--cluster", "site.yaml", "--set", "grid.seed=[1, 2, 3]", "--wait")
    assert pair.call(a, "submit", *options).returncode == 0
    assert "6 done" in pair.call(b, "status").stdout
    owners = {path.owner() for path in run.path.glob("trials/*")}
    assert owners == {a, b}, "what one has begun, the other has gone on with"
