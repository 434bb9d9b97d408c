"""The daemons of a cluster: how each is started, found and signalled, and when it is ready."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import machines, processes
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTROLLER, SLURMD_PORT, SLURMDBD_PORT, Layout

SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
START_TIMEOUT = 30  # seconds; each takes well under one on an idle machine


class EndedAtOnce(ClusterError):
    """A daemon that was started is gone before it was ready."""


@dataclass(frozen=True)
class Daemon:
    """`name` is also its command name in /proc."""

    name: str
    machine: str
    argv: tuple[str, ...]
    log: Path
    is_ready: Callable[[], bool]


def munged(layout: Layout) -> Daemon:
    run = layout.run
    argv = (
        "munged --foreground --num-threads=2"
        f" --key-file={run}/munge.key --socket={layout.munge_socket} --pid-file={run}/munged.pid"
        f" --seed-file={run}/munge.seed"
    )
    return Daemon("munged", CONTROLLER, tuple(argv.split()), layout.log("munged"), layout.munge_socket.is_socket)


def mariadbd(layout: Layout) -> Daemon:
    argv = ("mariadbd", f"--defaults-file={layout.etc}/mariadb.conf")
    return Daemon("mariadbd", CONTROLLER, argv, layout.log("mariadbd"), partial(_listens, layout, CONTROLLER, 3306))


def slurmdbd(layout: Layout) -> Daemon:
    return Daemon("slurmdbd", CONTROLLER, ("slurmdbd",), layout.log("slurmdbd"), partial(_knows_resources, layout))


def slurmctld(layout: Layout) -> Daemon:
    argv = ("slurmctld", "-f", str(layout.slurm_conf))
    return Daemon("slurmctld", CONTROLLER, argv, layout.log("slurmctld"), partial(_answers, layout))


def slurmd(layout: Layout, node: str) -> Daemon:
    argv = ("slurmd", "-N", node, "-f", str(layout.slurm_conf))
    return Daemon("slurmd", node, argv, layout.log("slurmd", node), partial(_listens, layout, node, SLURMD_PORT))


def of_controller(layout: Layout) -> list[Daemon]:
    """In the order in which they need each other."""
    database = [mariadbd(layout), slurmdbd(layout)] if layout.spec.accounting else []
    return [munged(layout), *database, slurmctld(layout)]


def pids(layout: Layout, daemon: Daemon, *, starting: bool = False) -> list[int]:
    """With `starting`, also of what is about to become it: `setsid`, which `launch` leaves behind for a moment."""
    first = processes.first_processes(layout.dir).get(daemon.machine)
    if first is None:
        return []
    commands = (daemon.name, "setsid") if starting else (daemon.name,)
    return [pid for pid, command in processes.inside(first).items() if command in commands]


def send(layout: Layout, daemon: Daemon, number: signal.Signals) -> None:
    """Returns, for a signal that ends it, when it is gone."""
    targets = pids(layout, daemon)
    for pid in targets:
        processes.send(pid, number)
    if number in (signal.SIGKILL, signal.SIGTERM):
        if number is signal.SIGTERM:  # one that is frozen could not act on it
            send(layout, daemon, signal.SIGCONT)

        def complaint() -> str:
            return f"{daemon.name} on {daemon.machine} does not end.\n{machines.last_lines(daemon.log)}"

        processes.wait_for(lambda: not any(processes.alive(pid) for pid in targets), 30, complaint)


def launch(layout: Layout, daemon: Daemon) -> None:
    """Starts it, without waiting until it is ready."""
    if daemon.name == "munged":
        _write_munge_key(layout.run / "munge.key")
    if daemon.name == "mariadbd" and not (layout.run / "mariadb").exists():
        _create_database(layout)
    argv = machines.inside(layout, daemon.machine, ["setsid", "--fork", *daemon.argv])
    machines.detached(argv, daemon.log, machines.clean_environment(layout))


def await_ready(layout: Layout, daemon: Daemon) -> None:
    def ready_or_gone() -> bool:
        return daemon.is_ready() or _gone(layout, daemon)

    def complaint(what: str) -> str:
        logs = [machines.last_lines(other.log) for other in _needed_by(layout, daemon)]
        return "\n".join([f"{daemon.name} on {daemon.machine} {what}.", machines.last_lines(daemon.log), *logs])

    processes.wait_for(ready_or_gone, START_TIMEOUT, lambda: complaint(f"is not ready after {START_TIMEOUT} s"))
    if not daemon.is_ready():
        raise EndedAtOnce(complaint("ended right after its start"))


def start(layout: Layout, daemon: Daemon) -> None:
    """Returns when it is ready; lets it go on if it was frozen, and leaves it alone if it runs."""
    running = pids(layout, daemon)
    if running and not any(processes.stopped(pid) for pid in running):
        return
    if running:
        send(layout, daemon, signal.SIGCONT)
    else:
        launch(layout, daemon)
    try:
        await_ready(layout, daemon)
    except EndedAtOnce:
        # As systemd would: slurmctld's first start ends if the database that answered a moment ago does not.
        launch(layout, daemon)
        await_ready(layout, daemon)


def _needed_by(layout: Layout, daemon: Daemon) -> list[Daemon]:
    """What the controller runs before it, the nearest first."""
    earlier = itertools.takewhile(lambda other: other.name != daemon.name, of_controller(layout))
    return list(earlier)[::-1] if daemon.machine == CONTROLLER else []


def _gone(layout: Layout, daemon: Daemon) -> bool:
    """One look is not enough: it can miss a process that forks in that moment, as daemons do at their start."""
    for _ in range(3):
        if pids(layout, daemon, starting=True):
            return False
        time.sleep(0.02)
    return True


def _listens(layout: Layout, machine: str, port: int) -> bool:
    first = processes.first_processes(layout.dir).get(machine)
    return first is not None and processes.listening(first, port)


def _knows_resources(layout: Layout) -> bool:
    """slurmdbd listens before its connection to the database stands, and slurmctld ends at once if it gets no TRES."""
    if not _listens(layout, CONTROLLER, SLURMDBD_PORT):
        return False
    argv = ["sacctmgr", "--noheader", "--parsable2", "show", "tres"]
    result = subprocess.run(argv, env=machines.clean_environment(layout), capture_output=True)
    return result.returncode == 0 and b"cpu" in result.stdout


def _answers(layout: Layout) -> bool:
    environment = machines.clean_environment(layout)
    return subprocess.run(["scontrol", "ping"], env=environment, capture_output=True).returncode == 0


def _write_munge_key(path: Path) -> None:
    if not path.exists():
        path.touch(0o600)
        path.write_bytes(os.urandom(128))


def _create_database(layout: Layout) -> None:
    """An empty database with only the tables that MariaDB itself needs: 0.3 s, where mariadb-install-db takes 6."""
    data = layout.run / "mariadb"
    data.mkdir()
    statements = f"create database mysql;\nuse mysql;\n{SYSTEM_TABLES.read_text()}"
    argv = machines.inside(layout, CONTROLLER, [*mariadbd(layout).argv, "--bootstrap"])
    log = layout.log("mariadbd")
    with log.open("ab") as output:
        result = subprocess.run(
            argv, input=statements.encode(), stdout=output, stderr=output, env=machines.clean_environment(layout)
        )
    if result.returncode:
        raise ClusterError(f"MariaDB could not make its database.\n{machines.last_lines(log)}")
