"""Machines out of Linux namespaces: each with a hostname, an address, process ids, /dev/shm and local disk of its own.

The switch is a network namespace with a bridge. Every machine has one cable (a veth pair) to it, and so has the host.
That the bridge is not the host's own keeps it out of reach of a firewall there, and lets it vanish with its process.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.cluster import config, processes
from tests.cluster.errors import ClusterError
from tests.cluster.layout import SWITCH, Layout, State, command, host_interface, short_id
from tests.cluster.locks import locked

FIRST_PROCESS = Path(__file__).with_name("machine.sh")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--net", "--uts", "--mount", "--pid")
# "slave": what is mounted on the host below a shared mount (see Layout.mounts) comes in; nothing goes out.
UNSHARE = ("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--propagation", "slave")


def find_network(directory: Path) -> str:
    """A free /24 of 198.18.0.0/15, which is set aside for tests of networks (RFC 2544)."""
    routes = json.loads(_run(["ip", "-4", "-json", "route", "show", "table", "all"]) or "[]")
    used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    first = int(short_id(directory), 16)
    for number in range(first, first + 512):
        network = f"198.{18 + number // 256 % 2}.{number % 256}"
        if not any(route.subnet_of(ipaddress.IPv4Network(f"{network}.0/24")) for route in used):
            return network
    raise ClusterError("all of 198.18.0.0/15 is in use here (`ip route` shows by what)")


def network_lock() -> AbstractContextManager[None]:
    """Held from finding a free network to using it, since two clusters may look at the same time."""
    return locked(Path(tempfile.gettempdir()) / "slurm-test-cluster-network.lock")


def share_mounts(layout: Layout) -> None:
    _run(["mount", "--bind", str(layout.mounts), str(layout.mounts)])
    _run(["mount", "--make-shared", str(layout.mounts)])


def start_switch(layout: Layout) -> None:
    first = _start(layout, SWITCH)
    _ip(first, "link add name br0 type bridge", "link set br0 up")
    cable = f"link add name {layout.host_interface} type veth peer name host netns {first}"
    up = [f"addr add {layout.host_address}/24 dev {layout.host_interface}", f"link set {layout.host_interface} up"]
    _ip(None, cable, *up)
    _ip(first, "link set host master br0 up")


def start(layout: Layout, machine: str) -> None:
    """Does nothing if it runs."""
    firsts = processes.first_processes(layout.dir)
    if machine in firsts:
        return
    first, switch = _start(layout, machine), firsts[SWITCH]
    _unplug(_enter(switch, "--net"), machine)  # one that somebody killed by hand may not be gone from there yet
    cable = f"link add name {machine} type veth peer name eth0 address {layout.hardware_address(machine)} netns {first}"
    _ip(switch, cable, f"link set {machine} master br0 up")
    _ip(first, f"addr add {layout.address(machine)}/24 dev eth0", "link set eth0 up")


def crash(layout: Layout, machine: str) -> None:
    """As when the power fails: no connection is closed, its peers only hear nothing more."""
    firsts = processes.first_processes(layout.dir)
    if machine in firsts:
        _unplug(_enter(firsts[SWITCH], "--net"), machine)
        processes.end([firsts[machine]])


def set_link(layout: Layout, machine: str, state: str) -> None:
    """Pulls the machine's cable out of the switch ("down"), or plugs it in ("up")."""
    _ip(processes.first_processes(layout.dir)[SWITCH], f"link set {machine} {state}")


def link_states(layout: Layout) -> dict[str, str]:
    """machine -> "up" or "down"; a machine that does not run has no cable and is not in it."""
    switch = processes.first_processes(layout.dir)[SWITCH]
    links = json.loads(_run([*_enter(switch, "--net"), "ip", "-json", "link"]))
    flags = {link["ifname"]: link["flags"] for link in links}
    return {machine: "up" if "UP" in flags[machine] else "down" for machine in layout.machines if machine in flags}


def inside(layout: Layout, machine: str, argv: Sequence[str]) -> list[str]:
    """argv of a process that runs `argv` on that machine, as if logged in there."""
    first = processes.first_processes(layout.dir).get(machine)
    if first is None:
        raise ClusterError(f"{machine} does not run: boot it with {command(layout.dir, f'fault boot {machine}')}")
    return [*_enter(first, *NAMESPACES), *argv]


def clean_environment(layout: Layout) -> dict[str, str]:
    """What daemons start with: nothing of the user's, and not the mark of a machine's first process."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(layout.slurm_conf)}


def end_all(directory: Path) -> None:
    """All machines with all that runs on them, whatever state they are in. Their network goes with them."""
    while found := processes.marked(directory):
        processes.end(found)
    for mount in reversed(_mounts_below(directory)):
        _run(["umount", "--lazy", mount])
    if _mounts_below(directory):  # else whoever removes the directory would remove what is mounted there
        raise ClusterError(f"these could not be unmounted: {', '.join(_mounts_below(directory))}")
    state = State.read(directory)
    if state and state.layout.spec.settings.items() >= config.ENFORCE_MEMORY.items():
        _remove_cgroups(state.layout)
    interface = Path("/sys/class/net", host_interface(directory))
    if interface.exists():
        _unplug([], interface.name)
        processes.wait_for(lambda: not interface.exists(), 20, lambda: f"interface {interface.name} cannot be removed")


def _mounts_below(directory: Path) -> list[str]:
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [field[4].encode().decode("unicode_escape") for field in fields]
    return [point for point in points if point.startswith(f"{directory}/")]


def _remove_cgroups(layout: Layout) -> None:
    for node in layout.nodes:
        for top in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
            for directory, _, _ in os.walk(top, topdown=False):
                Path(directory).rmdir()


def _start(layout: Layout, machine: str) -> int:
    directory = layout.machine_dir(machine)
    (directory / "local").mkdir(parents=True, exist_ok=True)
    (directory / "up").unlink(missing_ok=True)
    (directory / "hosts").write_text(config.hosts(layout, socket.gethostname()))
    (directory / "hostname").write_text(f"{machine}\n")
    log = layout.logs / f"machine-{machine}.log"
    argv = ["setsid", "--fork", *UNSHARE, "bash", str(FIRST_PROCESS), machine, str(directory), str(layout.local)]
    detached(argv, log, {"PATH": PATH, **processes.mark(layout.dir, machine)})

    def is_up() -> bool:
        return (directory / "up").exists() and machine in processes.first_processes(layout.dir)

    processes.wait_for(is_up, 20, lambda: f"machine {machine} did not start.\n{last_lines(log)}")
    return processes.first_processes(layout.dir)[machine]


def detached(argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Runs a command that puts itself into the background; what it says goes to the end of `log`."""
    with log.open("ab") as output:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd="/", umask=0o022
        )
    if result.returncode:
        raise ClusterError(f"`{' '.join(argv)}` ended with {result.returncode}.\n{last_lines(log)}")


def last_lines(log: Path, count: int = 15) -> str:
    """For error messages: which file to read, and how it ends."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"Read {log}" + (", which ends with:" if lines else " (it is empty)"), *lines[-count:]])


def _enter(first: int, *namespaces: str) -> list[str]:
    return ["nsenter", "--target", str(first), *namespaces, "--"]


def _unplug(prefix: Sequence[str], interface: str) -> None:
    """No harm is done if it is not there: the kernel removes cables too, some time after their machine is gone."""
    subprocess.run([*prefix, "ip", "link", "del", interface], env={"PATH": PATH}, capture_output=True)


def _ip(first: int | None, *commands: str) -> None:
    """`ip` commands in the network namespace of a process, or in this one."""
    prefix = [] if first is None else _enter(first, "--net")
    _run([*prefix, "ip", "-batch", "-"], "\n".join(commands))


def _run(argv: Sequence[str], text: str = "") -> str:
    result = subprocess.run(
        argv, input=text, capture_output=True, text=True, env={**os.environ, "PATH": PATH, "LC_ALL": "C"}
    )
    if result.returncode:
        raise ClusterError(f"`{' '.join(argv)}` failed: {result.stderr.strip()} {text}")
    return result.stdout
