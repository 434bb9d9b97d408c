"""What a user of a healthy cluster can rely on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError
from tests.cluster.processes import wait_for

GraceTime = Callable[[int], None]
LOW = ["--partition=low", "--exclusive", "--nodelist=node[1-3]", "--requeue"]
HIGH = ["--partition=main", "--exclusive", "--nodelist=node[1-3]"]


@pytest.fixture
def grace_time(cluster: Cluster) -> Iterator[GraceTime]:
    """Sets how many seconds a preempted job has to end by itself, for one test."""

    def set_to(seconds: int) -> None:
        cluster.run(["scontrol", "update", "PartitionName=low", f"GraceTime={seconds}"])

    yield set_to
    set_to(10)


def test_four_nodes_are_idle(cluster: Cluster) -> None:
    rows = cluster.run(["sinfo", "--noheader", "--format=%P %D %T %N"]).splitlines()
    assert rows == ["main* 4 idle node[1-4]", "low 4 idle node[1-4]"]


def test_srun_starts_the_tasks_of_two_nodes_on_two_nodes(cluster: Cluster) -> None:
    said = cluster.run(["srun", "--nodes=2", "--ntasks-per-node=2", "sh", "-c", "echo $(hostname) $SLURM_PROCID"])
    assert sorted(said.splitlines()) == ["node1 0", "node1 1", "node2 2", "node2 3"]


def test_a_node_reaches_another_by_its_name(cluster: Cluster, tmp_path: Path) -> None:
    """As the ranks of a job reach its first node."""
    serve = "import socket; s = socket.create_server(('', 29500)); s.accept()[0].sendall(b'hello')"
    ask = f"""
import os, socket, subprocess, sys, time
if os.environ["SLURM_PROCID"] == "0":
    exec({serve!r})
else:
    for _ in range(100):
        try:
            print(socket.create_connection(("node1", 29500)).recv(9).decode(), "from", socket.gethostbyname("node1"))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""
    (tmp_path / "ask.py").write_text(ask)
    said = cluster.run(["srun", "--nodes=2", "--ntasks-per-node=1", sys.executable, str(tmp_path / "ask.py")])
    assert said.strip() == f"hello from {cluster.layout.address('node1')}"


def test_nodes_share_files_but_not_local_disk_and_shared_memory(cluster: Cluster, tmp_path: Path) -> None:
    local = cluster.layout.local
    write = f"for d in {tmp_path} {local} /dev/shm; do echo $(hostname) >> $d/who; done"
    cluster.run(["srun", "--nodes=2", "sh", "-c", write])
    read = f"cat {local}/who /dev/shm/who"
    assert cluster.run(["srun", "--nodelist=node2", "sh", "-c", read]).split() == ["node2", "node2"]
    assert sorted((tmp_path / "who").read_text().split()) == ["node1", "node2"]
    assert (cluster.layout.local_on("node1") / "who").read_text() == "node1\n"
    assert not (local / "who").exists()


def test_a_full_disk_can_be_mounted_on_all_nodes(cluster: Cluster) -> None:
    disk = cluster.layout.mounts / "small"
    disk.mkdir()
    cluster.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)])
    try:
        cluster.run(["srun", "--nodelist=node1", "sh", "-c", f"hostname > {disk}/who"])
        assert cluster.run(["srun", "--nodelist=node2", "cat", f"{disk}/who"]) == "node1\n"
        assert (disk / "who").read_text() == "node1\n"
        with pytest.raises(ClusterError, match="No space left on device"):
            cluster.run(["srun", "dd", "if=/dev/zero", f"of={disk}/big", "bs=1k", "count=100"])
    finally:
        cluster.run(["umount", str(disk)])


def test_an_array_runs_every_element(cluster: Cluster, tmp_path: Path) -> None:
    cluster.submit(["--array=0-7", f"--output={tmp_path}/%a.out", "--wrap", "echo $SLURM_ARRAY_TASK_ID"])
    cluster.wait_idle()
    assert [(tmp_path / f"{index}.out").read_text() for index in range(8)] == [f"{index}\n" for index in range(8)]


def test_a_job_gets_the_gpus_that_it_asks_for(cluster: Cluster) -> None:
    show = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES $SLURM_GPUS_ON_NODE"]
    assert cluster.run(["srun", "--gpus-per-node=2", *show]).strip() == "0,1 2"


def test_more_gpus_than_a_node_has_are_refused_at_submission(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        cluster.submit(["--gpus-per-node=9", "--wrap", "true"])


def test_scancel_sends_a_signal_to_every_task_of_a_step(cluster: Cluster, tmp_path: Path) -> None:
    task = 'trap "echo USR2; exit 85" USR2; echo ready; while :; do sleep 0.05; done'
    script = f"srun --nodes=2 --ntasks=2 --output={tmp_path}/%t.out sh -c '{task}'"
    job = cluster.submit(["--nodes=2", f"--output={tmp_path}/job.out", "--wrap", script])
    outputs = [tmp_path / "0.out", tmp_path / "1.out"]
    wait_for(lambda: all(o.exists() and o.read_text() for o in outputs), 20, lambda: "the step does not start")
    cluster.run(["scancel", "--signal=USR2", job])
    assert cluster.wait_for_job(job, "COMPLETED", "FAILED")["ExitCode"] == "85:0"
    assert all("USR2" in output.read_text() for output in outputs)


def test_a_job_in_main_requeues_one_in_low(cluster: Cluster, grace_time: GraceTime) -> None:
    grace_time(0)
    low = cluster.submit([*LOW, "--output=/dev/null", "--wrap", '[ "$SLURM_RESTART_COUNT" ] || sleep 1000'])
    cluster.wait_for_job(low, "RUNNING")
    high = cluster.submit([*HIGH, "--output=/dev/null", "--wrap", "true"])
    cluster.wait_for_job(high, "COMPLETED")
    assert cluster.wait_for_job(low, "COMPLETED")["Restarts"] == "1"


@pytest.mark.slow_cluster  # slurmctld looks at time limits every 30 s, and lets a grace time last for 10 s at least
def test_preemption_and_the_time_limit_announce_themselves(cluster: Cluster, tmp_path: Path) -> None:
    """By the signal asked for. Slurm may send it up to 60 s early: with a limit of one minute, about at once."""
    script = 'trap "echo USR2; exit 85" USR2; while :; do sleep 0.05; done'
    outputs = [tmp_path / "low.out", tmp_path / "limited.out"]
    options = ["--signal=B:USR2@30", "--wrap", script]
    low = cluster.submit([*LOW, f"--output={outputs[0]}", *options])
    limited = cluster.submit(["--nodelist=node4", "--time=1", f"--output={outputs[1]}", *options])
    cluster.wait_for_job(low, "RUNNING")
    cluster.submit([*HIGH, "--output=/dev/null", "--wrap", "true"])
    assert [cluster.wait_for_job(job, "FAILED")["ExitCode"] for job in (low, limited)] == ["85:0", "85:0"]
    assert all("USR2" in output.read_text() for output in outputs)


def test_sacct_tells_of_finished_jobs(cluster: Cluster) -> None:
    job = cluster.submit(["--output=/dev/null", "--wrap", "exit 3"])

    def row() -> str:
        return cluster.run(["sacct", "-X", "--noheader", "--parsable2", "--format=State,ExitCode", "--jobs", job])

    wait_for(lambda: row() == "FAILED|3:0\n", 20, lambda: f"sacct says {row()!r}")


def test_without_accounting_it_starts_at_once_and_runs_jobs(plain_cluster: Cluster) -> None:
    assert sorted(plain_cluster.run(["srun", "--nodes=4", "hostname"]).split()) == plain_cluster.layout.nodes
    with pytest.raises(ClusterError, match="accounting storage is disabled"):
        plain_cluster.run(["sacct"])


def test_a_test_finds_the_queue_empty_after_one_that_left_jobs(cluster: Cluster) -> None:
    cluster.submit(["--array=0-99", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1000"])
    cluster.fault("drain", "node1")
    started = time.monotonic()
    cluster.heal()
    assert time.monotonic() - started < 30
    assert cluster.run(["squeue", "--noheader"]) == ""
    assert set(cluster.node_states().values()) == {"idle"}
