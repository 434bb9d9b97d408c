"""Finds and ends processes by what /proc says of them: no pid files that lie after a crash.

The first process of each machine carries the cluster's directory and the machine's name in its environment. All
others of a machine are known by sharing that process's pid namespace.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.errors import ClusterError

DIR_VARIABLE, MACHINE_VARIABLE = "SLURM_TEST_CLUSTER_DIR", "SLURM_TEST_CLUSTER_MACHINE"


def mark(directory: Path, machine: str) -> dict[str, str]:
    return {DIR_VARIABLE: str(directory), MACHINE_VARIABLE: machine}


def marked(directory: Path) -> dict[int, str]:
    """pid -> machine of all processes that carry this directory's mark."""
    wanted = f"{DIR_VARIABLE}={directory}".encode()
    found = {}
    for pid in _all():
        variables = _read(pid, "environ").split(b"\0")
        if wanted in variables:
            named = [v for v in variables if v.startswith(MACHINE_VARIABLE.encode() + b"=")]
            found[pid] = named[0].partition(b"=")[2].decode() if named else ""
    return found


def first_processes(directory: Path) -> dict[str, int]:
    """machine -> pid (seen from here) of the process that is number 1 inside it."""
    return {machine: pid for pid, machine in marked(directory).items() if _pid_inside(pid) == "1"}


def inside(first: int) -> dict[int, str]:
    """pid (seen from here) -> command of all live processes in the pid namespace of `first`."""
    namespace = _namespace(first)
    return {pid: command(pid) for pid in _all() if namespace and _namespace(pid) == namespace and alive(pid)}


def with_environment(variable: str, commands: Iterable[str]) -> list[int]:
    """pids of processes with one of these commands whose environment holds `variable` ("NAME=value")."""
    wanted, names = variable.encode(), set(commands)
    return [pid for pid in _all() if command(pid) in names and wanted in _read(pid, "environ").split(b"\0")]


def command(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def alive(pid: int) -> bool:
    """A zombie is not: it waits for its parent, which may never look."""
    return _run_state(pid) not in ("", "Z", "X")


def stopped(pid: int) -> bool:
    return _run_state(pid) == "T"


def listening(first: int, port: int) -> bool:
    """Whether something in the network namespace of `first` listens on that TCP port."""
    lines = (_read(first, "net/tcp") + _read(first, "net/tcp6")).decode().splitlines()
    fields = [line.split() for line in lines]
    return any(len(f) > 3 and f[1].endswith(f":{port:04X}") and f[3] == "0A" for f in fields)


def end(pids: Iterable[int], timeout: float = 20) -> None:
    """Kills them (-9) and returns when they are gone."""
    waiting = set(pids)
    for pid in waiting:
        send(pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in waiting), timeout, lambda: f"processes {waiting} survive kill -9")


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for(happened: Callable[[], bool], timeout: float, complaint: Callable[[], str]) -> None:
    """Polls until `happened()`; a ClusterError with `complaint()` after `timeout` seconds."""
    end_at = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > end_at:
            raise ClusterError(complaint())
        time.sleep(0.02)


def command_lines() -> dict[int, bytes]:
    """The command line of every process, its words ended by zeros."""
    return {pid: line for pid in _all() if (line := _read(pid, "cmdline"))}


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    """Empty when the process is gone, is a zombie, or is none of ours."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _run_state(pid: int) -> str:
    after_command = _read(pid, "stat").rpartition(b")")[2].split()
    return after_command[0].decode() if after_command else ""


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _pid_inside(pid: int) -> str:
    for line in _read(pid, "status").decode(errors="replace").splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return numbers[-1] if len(numbers) > 1 else ""
    return ""
