"""Slurm's own daemons that break, while trials run and while they are submitted."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from slurm.rundir import TrialDir
from slurm.state import State
from tests.survival.conftest import Site, same, wait_until, weights

Reference = Callable[..., TrialDir]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_of_slurmctld_does_not_touch_a_running_trial(site: Site, reference: Reference, how: str) -> None:
    site.submit(site.recipe(steps=2000))
    wait_until(lambda: site.attempts() == 1, 60, "it did not start")
    saved, since = site.cluster.layout.run / "slurmctld/job_state", time.time()
    wait_until(lambda: saved.exists() and saved.stat().st_mtime > since, 60, "a killed slurmctld would forget the job")
    site.wait_step(50)
    site.cluster.fault(f"{how}-slurmctld")
    told = site.call("status")
    assert "squeue" in told.stdout, "what is not known is said"
    assert "running" in told.stdout, "and what the trial's own files tell is shown"
    site.cluster.fault("start-slurmctld")
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert site.attempts() == 1
    assert same(weights(site.files(), 2000), weights(reference(steps=2000), 2000))


def test_without_slurmdbd_status_still_answers(site: Site) -> None:
    site.submit(site.recipe(seeds=(1, 2), array={"parallel": 1}))
    site.wait_step(50)
    site.cluster.fault("kill-slurmdbd")
    state = site.state()
    assert [trial.state for trial in state.trials] == [State.RUNNING, State.PENDING]
    assert "JobArrayTaskLimit" in state.trials[1].detail, "Slurm's own reason"
    site.call("cancel")
    assert site.wait_ended().counts == {State.CANCELLED: 2}
    site.call("retry")
    assert site.wait_ended().counts == {State.DONE: 2}, site.log()


def test_a_submission_that_timed_out_after_it_was_accepted_is_adopted_and_not_doubled(site: Site) -> None:
    recipe = site.recipe(seeds=(1, 2))
    profile = site.site_file()
    site.cluster.fault("freeze-slurmctld")  # it takes the request in and does not answer
    done = site.call("submit", recipe, "--cluster", profile, ok=False)
    assert done.returncode != 0
    assert "may be queued all the same" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    site.cluster.fault("thaw-slurmctld")
    wait_until(lambda: site.cluster.run(["squeue", "--noheader"]), 60, "the request that timed out was lost")
    again = site.call("submit", recipe, "--cluster", profile)
    assert "nothing to submit" in again.stdout
    assert site.wait_ended().counts == {State.DONE: 2}, site.log()
    assert [site.attempts(place) for place in (0, 1)] == [1, 1]
    jobs = site.cluster.run(["squeue", "--states=all", "--noheader", "--format=%F %k"]).splitlines()
    mine = {line.split()[0] for line in jobs if f"recipe:{site.run().path.name}/" in line}
    assert len(mine) == 1, "one array, and not two"


def test_a_waiting_trial_shows_slurms_reason_and_when_it_is_expected_to_start(site: Site) -> None:
    holder = ["--partition=main", "--exclusive", "--nodes=4", "--time=10", "--output=/dev/null", "--wrap=sleep 600"]
    blocker = site.cluster.submit(holder)
    site.cluster.wait_for_job(blocker, "RUNNING")
    site.submit(site.recipe())
    trial = wait_until(
        lambda: [t for t in site.state().trials if "expected to start" in t.detail], 60, lambda: str(site.trial())
    )[0]
    assert trial.state is State.PENDING
    assert "Resources" in trial.detail or "Priority" in trial.detail
    site.cluster.run(["scancel", blocker])
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
