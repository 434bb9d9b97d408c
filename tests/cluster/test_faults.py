"""Everything that can break, breaks as on a real cluster, and is mended again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError, faults
from tests.cluster.processes import wait_for


def running_on(cluster: Cluster, node: str, output: Path) -> str:
    """A job there that runs until it is started a second time."""
    script = 'echo $(hostname) $SLURM_RESTART_COUNT; [ "$SLURM_RESTART_COUNT" ] || sleep 1000'
    options = ["--requeue", f"--nodelist={node}", "--open-mode=append", f"--output={output}"]
    job = cluster.submit([*options, "--wrap", script])
    wait_for(lambda: output.exists() and bool(output.read_text()), 20, lambda: f"job {job} does not start")
    return job


def wait_for_state(cluster: Cluster, node: str, state: str, timeout: float = 40) -> None:
    wait_for(lambda: cluster.node_states()[node].startswith(state), timeout, lambda: f"{cluster.node_states()}")


@pytest.mark.slow_cluster  # Slurm needs 14 to 24 s to give a node up
def test_jobs_of_a_crashed_and_of_an_unreachable_node_are_requeued(cluster: Cluster, tmp_path: Path) -> None:
    crashed = running_on(cluster, "node1", tmp_path / "crashed")
    cut_off = running_on(cluster, "node2", tmp_path / "cut off")
    cluster.fault("crash", "node1")
    cluster.fault("link-down", "node2")
    wait_for_state(cluster, "node1", "down")
    wait_for_state(cluster, "node2", "down")
    assert cluster.node_states()["node3"] == "idle"
    assert cluster.job(crashed)["JobState"] == "PENDING"

    # Alone, but alive: its job goes on there, while Slurm would start it elsewhere.
    assert "sleep" in cluster.on("node2", ["ps", "-eo", "comm"]).split()

    cluster.fault("boot", "node1")
    cluster.fault("link-up", "node2")
    cluster.fault("resume", "node1")
    cluster.fault("resume", "node2")
    assert cluster.wait_for_job(crashed, "COMPLETED")["Restarts"] == "1"
    assert cluster.wait_for_job(cut_off, "COMPLETED")["Restarts"] == "1"
    assert (tmp_path / "crashed").read_text() == "node1\nnode1 1\n"


def test_a_crash_ends_every_process_of_the_node_and_keeps_its_disk(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(["srun", "--nodelist=node3", "sh", "-c", f"echo kept > {cluster.layout.local}/file"])
    running_on(cluster, "node3", tmp_path / "out")
    cluster.fault("crash", "node3")
    with pytest.raises(ClusterError, match=r"node3 does not run.*fault boot node3"):
        cluster.on("node3", ["true"])
    cluster.fault("boot", "node3")
    assert "sleep" not in cluster.on("node3", ["ps", "-eo", "args"]).replace("sleep infinity", "")
    assert cluster.on("node3", ["cat", f"{cluster.layout.local}/file"]) == "kept\n"


def test_slurmctld_keeps_its_jobs_over_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    end = tmp_path / "end"
    options = ["--output=/dev/null", "--wrap"]
    running = cluster.submit([*options, "sleep 1000"])
    ending = cluster.submit([*options, f"until [ -e {end} ]; do sleep 0.05; done"])
    cluster.wait_for_job(ending, "RUNNING")
    waiting = cluster.submit(["--begin=now+1hour", *options, "true"])
    saved = cluster.layout.run / "slurmctld" / "job_state"
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    # What was not saved is lost, and that happens every five seconds.
    wait_for(lambda: saved.exists() and saved.stat().st_mtime_ns > before, 20, lambda: "the state is not saved")

    cluster.fault("kill-slurmctld")
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        cluster.run(["squeue"])
    end.touch()
    cluster.fault("start-slurmctld")
    assert cluster.job(running)["JobState"] == "RUNNING"
    assert cluster.job(waiting)["JobState"] == "PENDING"
    cluster.wait_for_job(ending, "COMPLETED")


def test_a_frozen_slurmctld_takes_a_job_whose_sbatch_reported_a_timeout(cluster: Cluster) -> None:
    """Which is how a launcher that tries again submits a job twice."""
    cluster.fault("freeze-slurmctld")
    with pytest.raises(ClusterError, match="Socket timed out"):
        cluster.submit(["--job-name=accepted", "--hold", "--output=/dev/null", "--wrap", "true"])
    cluster.fault("thaw-slurmctld")
    names = ["squeue", "--noheader", "--format=%j"]
    wait_for(lambda: cluster.run(names) == "accepted\n", 20, lambda: f"squeue says {cluster.run(names)!r}")


def test_jobs_run_without_slurmdbd_and_are_recorded_when_it_is_back(cluster: Cluster) -> None:
    cluster.fault("kill-slurmdbd")
    job = cluster.submit(["--output=/dev/null", "--wrap", "true"])
    cluster.wait_for_job(job, "COMPLETED")
    with pytest.raises(ClusterError, match="Problem talking to the database"):
        cluster.run(["sacct"])
    assert job in cluster.run(["sacct", "--completion"]).split()

    cluster.fault("start-slurmdbd")
    state = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", "--jobs", job]
    wait_for(lambda: cluster.run(state) == "COMPLETED\n", 30, lambda: f"sacct says {cluster.run(state)!r}")


def test_a_step_outlives_its_slurmd(cluster: Cluster, tmp_path: Path) -> None:
    end = tmp_path / "end"
    script = f"until [ -e {end} ]; do sleep 0.05; done; echo done"
    job = cluster.submit(["--nodelist=node4", f"--output={tmp_path}/out", "--wrap", script])
    cluster.wait_for_job(job, "RUNNING")
    cluster.fault("kill-slurmd", "node4")
    cluster.fault("start-slurmd", "node4")
    end.touch()
    cluster.wait_for_job(job, "COMPLETED")
    assert (tmp_path / "out").read_text() == "done\n"


def test_a_drained_node_gets_no_jobs_until_it_is_resumed(cluster: Cluster) -> None:
    cluster.fault("drain", "node1")
    assert cluster.node_states()["node1"] == "drained"
    job = cluster.submit(["--nodelist=node1", "--output=/dev/null", "--wrap", "true"])
    assert cluster.job(job)["JobState"] == "PENDING"
    cluster.fault("resume", "node1")
    cluster.wait_for_job(job, "COMPLETED")


def test_heal_mends_everything_at_once(cluster: Cluster) -> None:
    for kind, node in [("crash", "node1"), ("link-down", "node2"), ("freeze-slurmd", "node3"), ("drain", "node4")]:
        cluster.fault(kind, node)
    cluster.fault("stop-slurmdbd")
    cluster.fault("stop-slurmctld")
    cluster.heal()
    assert cluster.run(["srun", "--nodes=4", "--ntasks=4", "true"]) == ""
    assert "test" in cluster.run(["sacctmgr", "--noheader", "show", "cluster", "format=cluster"])


@pytest.mark.parametrize(
    ("kind", "node", "complaint"),
    [
        ("melt", None, "no fault is called 'melt'; there are crash, boot"),
        ("crash", None, "crash needs one of the nodes node1, node2, node3, node4, not none"),
        ("crash", "node9", "not node9"),
        ("kill-slurmctld", "node1", "takes no node"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    plain_cluster: Cluster, kind: str, node: str | None, complaint: str
) -> None:
    with pytest.raises(ClusterError, match=complaint):
        plain_cluster.fault(kind, node)


@pytest.mark.parametrize("kind", [kind for kind in faults.OF_THE_CONTROLLER if kind.endswith("slurmdbd")])
def test_there_is_no_slurmdbd_to_break_without_accounting(plain_cluster: Cluster, kind: str) -> None:
    with pytest.raises(ClusterError, match="runs without slurmdbd"):
        plain_cluster.fault(kind)
