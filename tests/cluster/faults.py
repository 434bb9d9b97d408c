"""Everything that can be done to a cluster: the kinds of `fault`, by name. Repeating one does no harm."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

from tests.cluster import daemons, machines, processes, slurm
from tests.cluster.daemons import Daemon
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout, command


def _crash(layout: Layout, node: str) -> None:
    machines.crash(layout, node)


def _boot(layout: Layout, node: str) -> None:
    machines.start(layout, node)
    daemons.start(layout, daemons.slurmd(layout, node))


def _link(layout: Layout, node: str, *, state: str) -> None:
    if node not in processes.first_processes(layout.dir):
        raise ClusterError(f"{node} has no link, since it does not run: {command(layout.dir, f'fault boot {node}')}")
    machines.set_link(layout, node, state)


DaemonFault = Callable[[Layout, Daemon], None]
DAEMON_FAULTS: dict[str, DaemonFault] = {
    "kill": partial(daemons.send, number=signal.SIGKILL),
    "stop": partial(daemons.send, number=signal.SIGTERM),
    "freeze": partial(daemons.send, number=signal.SIGSTOP),  # takes requests in, and lets them time out
    "thaw": partial(daemons.send, number=signal.SIGCONT),
    "start": daemons.start,
}


def _on_slurmd(fault: DaemonFault, layout: Layout, node: str) -> None:
    fault(layout, daemons.slurmd(layout, node))


def _on_controller(fault: DaemonFault, name: str, layout: Layout) -> None:
    by_name = {daemon.name: daemon for daemon in daemons.of_controller(layout)}
    if name not in by_name:
        raise ClusterError(f"this cluster runs without {name}: it was started with --no-accounting")
    fault(layout, by_name[name])


OF_A_NODE: dict[str, Callable[[Layout, str], None]] = {
    "crash": _crash,
    "boot": _boot,
    "link-down": partial(_link, state="down"),
    "link-up": partial(_link, state="up"),
    "drain": slurm.drain,
    "resume": slurm.resume,
    **{f"{verb}-slurmd": partial(_on_slurmd, fault) for verb, fault in DAEMON_FAULTS.items()},
}
OF_THE_CONTROLLER: dict[str, Callable[[Layout], None]] = {
    f"{verb}-{name}": partial(_on_controller, fault, name)
    for name in ("slurmctld", "slurmdbd")
    for verb, fault in DAEMON_FAULTS.items()
}


def inject(layout: Layout, kind: str, node: str | None = None) -> None:
    """Returns when it is done, not when Slurm has noticed it: a crashed node is seen as down 14-24 s later."""
    if kind in OF_THE_CONTROLLER:
        if node is not None:
            raise ClusterError(f"{kind} is for the controller and takes no node")
        OF_THE_CONTROLLER[kind](layout)
    elif kind in OF_A_NODE:
        if node not in layout.nodes:
            raise ClusterError(f"{kind} needs one of the nodes {', '.join(layout.nodes)}, not {node or 'none'}")
        OF_A_NODE[kind](layout, node)
    else:
        raise ClusterError(f"no fault is called '{kind}'; there are {', '.join([*OF_A_NODE, *OF_THE_CONTROLLER])}")


def heal(layout: Layout) -> None:
    """Undoes all faults: everything runs, is connected, and is in service again. Fast when there is nothing to undo."""
    booted = processes.first_processes(layout.dir)
    for node, state in machines.link_states(layout).items():
        if state == "down":
            machines.set_link(layout, node, "up")
    for node in layout.nodes:
        if node not in booted:
            machines.start(layout, node)
        daemons.start(layout, daemons.slurmd(layout, node))
    for daemon in daemons.of_controller(layout):  # after the nodes, so that it need not wait for what was broken there
        daemons.start(layout, daemon)
    slurm.resume(layout, *layout.nodes)
