"""Starting and ending: nothing is left, nothing is taken for granted, nothing collides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError, config, daemons, processes, requirements
from tests.cluster.layout import Layout, Spec, host_interface

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(plain_cluster: Cluster) -> Iterator[Path]:
    """Of a cluster that the test may start; `plain_cluster` is there to skip, and to be a neighbour."""
    path = plain_cluster.dir.with_name(f"{plain_cluster.dir.name}-own")
    yield path
    if path.exists() and (path / "cluster.json").exists():
        Cluster(path).down()


def program(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.cluster", *arguments]
    return subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def says(*arguments: str) -> tuple[int, str]:
    started = program(*arguments)
    output, _ = started.communicate(timeout=120)
    return started.returncode, output


def traces(directory: Path) -> list[str]:
    """All that a cluster may have left on this machine."""
    commands = processes.command_lines()
    found = [f"process {pid}: {line!r}" for pid, line in commands.items() if f"{directory}/".encode() in line]
    found += [f"process {pid}" for pid in processes.marked(directory)]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]
    found += [f"socket {line}" for line in Path("/proc/net/unix").read_text().splitlines() if f"{directory}/" in line]
    found += [f"file {path}" for path in directory.parent.glob(f"{directory.name}*")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob("*/slurm_node*")]
    found += [f"interface {path}" for path in Path("/sys/class/net").glob(host_interface(directory))]
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return found + [f"namespace {name}" for name in names.splitlines() if "slurm" in name]


def test_down_leaves_nothing_behind_whatever_was_going_on(directory: Path) -> None:
    cluster = Cluster(directory, nodes=2)
    assert cluster.up()
    assert traces(directory)
    with subprocess.Popen(["srun", "--nodes=2", "sleep", "1000"], env=cluster.env, stderr=subprocess.DEVNULL) as client:
        cluster.submit(["--output=/dev/null", "--wrap", "trap '' TERM; sleep 1000"])
        processes.wait_for(lambda: "mixed" in cluster.node_states().values(), 20, lambda: "no job starts")
        (cluster.layout.mounts / "disk").mkdir()
        cluster.run(["mount", "-t", "tmpfs", "tmpfs", str(cluster.layout.mounts / "disk")])
        cluster.fault("crash", "node1")
        cluster.fault("link-down", "node2")
        cluster.fault("freeze-slurmctld")
        assert cluster.down()
        assert client.wait(timeout=20) != 0
    assert traces(directory) == []
    assert not cluster.down()


def test_up_again_and_down_again_say_so_and_do_nothing(directory: Path) -> None:
    option = f"--dir={directory}"
    assert says("status", option) == (3, f"{directory}: not up\n")
    export = f"export SLURM_CONF={directory}/etc/slurm.conf\n"

    code, output = says("up", option, "--no-accounting", "--nodes=1", "--set", "MaxArraySize=1001")
    assert code == 0
    assert "# up in " in output
    assert output.endswith(export)
    code, output = says("up", option, "--no-accounting", "--nodes=1", "--set", "MaxArraySize=1001")
    assert code == 0
    assert "# already up: 1 nodes, without accounting, MaxArraySize=1001" in output
    assert output.endswith(export)

    code, output = says("up", option)
    assert code == 1
    assert output.startswith("error: a cluster with 1 nodes, without accounting, MaxArraySize=1001 is up in ")
    with pytest.raises(ClusterError, match="Invalid job array specification"):
        Cluster(directory).submit(["--array=1001", "--wrap", "true"])

    code, output = says("status", option)
    assert code == 0
    assert "slurmctld" in output
    assert "node1" in output
    assert says("fault", option, "crash", "node1") == (0, "")
    assert "node1    " in (output := says("status", option)[1])
    assert "slurmd (not running)" in output

    assert says("down", option) == (0, f"{directory}: down, nothing is left\n")
    assert says("down", option) == (0, f"{directory}: was not up\n")
    assert traces(directory) == []


def test_of_two_at_once_one_starts_it_and_the_other_finds_it(directory: Path) -> None:
    both = [program("up", f"--dir={directory}", "--no-accounting", "--nodes=1") for _ in range(2)]
    said = sorted(one.communicate(timeout=60)[0].split(":")[0].split(" in ")[0] for one in both)
    assert said == ["# already up", "# up"]
    assert [one.returncode for one in both] == [0, 0]


def test_two_clusters_live_side_by_side(plain_cluster: Cluster, directory: Path) -> None:
    other = Cluster(directory, nodes=1, accounting=False)
    other.up()
    assert other.layout.network != plain_cluster.layout.network
    other.submit(["--hold", "--output=/dev/null", "--wrap", "true"])
    assert plain_cluster.run(["squeue", "--noheader"]) == ""
    assert other.run(["srun", "hostname"]) == plain_cluster.run(["srun", "hostname"]) == "node1\n"
    other.down()
    assert plain_cluster.run(["srun", "--nodes=4", "--ntasks=4", "true"]) == ""


@pytest.mark.parametrize("after", [0.1, 0.3, 0.6])
def test_a_start_that_was_killed_is_cleaned_up(directory: Path, after: float) -> None:
    started = program("up", f"--dir={directory}")
    processes.wait_for(lambda: (directory / "cluster.json").exists(), 20, lambda: "it does not start")
    time.sleep(after)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    cluster = Cluster(directory, nodes=1, accounting=False)
    assert not cluster.is_up
    assert cluster.up()
    cluster.down()
    assert traces(directory) == []


def test_pieces_that_were_killed_and_files_that_were_removed_do_not_keep_it_from_ending(directory: Path) -> None:
    cluster = Cluster(directory, nodes=2, accounting=False)
    cluster.up()
    firsts = processes.first_processes(directory)
    for machine in ("switch", "ctl"):
        os.kill(firsts[machine], signal.SIGKILL)
    processes.wait_for(lambda: not cluster.is_up, 20, lambda: "it does not die")
    assert cluster.up()
    subprocess.run(["rm", "-rf", *(str(path) for path in directory.iterdir() if path.name != "mounts")], check=True)
    assert cluster.down()
    assert traces(directory) == []


def test_a_daemon_that_does_not_start_is_named_with_the_end_of_its_log(directory: Path) -> None:
    cluster = Cluster(directory, nodes=1, accounting=False, settings={"SelectType": "select/nonsense"})
    with pytest.raises(ClusterError) as caught:
        cluster.up()
    message = str(caught.value)
    assert message.startswith("slurmctld on ctl ended right after its start.\n")
    log = directory / "log" / "slurmctld.log"
    assert f"Read {log}, which ends with:" in message
    assert "select/nonsense" in message
    assert log.exists(), "the log is there to be read"
    assert processes.marked(directory) == {}
    cluster.down()
    assert traces(directory) == []


@pytest.mark.usefixtures("memory_limits")
def test_memory_is_enforced_if_asked_for(directory: Path) -> None:
    cluster = Cluster(directory, nodes=1, accounting=False, settings=config.ENFORCE_MEMORY)
    cluster.up()
    greedy = f"{sys.executable} -c 'bytearray(300 << 20)'"
    job = cluster.submit(["--mem=100M", "--output=/dev/null", "--wrap", greedy])
    cluster.wait_for_job(job, "OUT_OF_MEMORY")
    cluster.down()
    assert traces(directory) == []


def test_a_directory_with_something_else_in_it_is_left_alone(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for action in (Cluster(tmp_path).up, Cluster(tmp_path).down):
        with pytest.raises(ClusterError, match="holds something else than a test cluster"):
            action()
    assert (tmp_path / "thesis.tex").exists()


def test_a_path_too_long_for_a_socket_is_refused(directory: Path) -> None:
    with pytest.raises(ClusterError, match="too long for sockets"):
        Cluster(directory / ("x" * 80)).up()


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "COMMANDS", ("sh", "slurmctld-of-tomorrow"))
    assert requirements.missing() == (
        "the test cluster needs slurmctld-of-tomorrow: run `sudo bash tests/cluster/install.sh`"
    )
    monkeypatch.setattr(requirements, "COMMANDS", ("sh",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in str(requirements.missing())


def test_the_environment_of_clients_points_to_this_cluster_alone(
    plain_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    monkeypatch.setenv("PATH", "/opt/bin")
    assert "SBATCH_PARTITION" not in plain_cluster.env
    assert plain_cluster.env["SLURM_CONF"] == str(plain_cluster.layout.slurm_conf)
    assert plain_cluster.env["PATH"].split(":")[0] == "/opt/bin"
    assert "/usr/sbin" in plain_cluster.env["PATH"].split(":")


def test_the_controller_needs_its_database_first() -> None:
    names = [daemon.name for daemon in daemons.of_controller(Layout(Path("/tmp/x"), Spec(), "198.18.0"))]
    assert names == ["munged", "mariadbd", "slurmdbd", "slurmctld"]
