"""What `status` says."""

from __future__ import annotations

import shlex

from tests.cluster import daemons, machines, processes, slurm
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTROLLER, Layout


def report(layout: Layout) -> str:
    states, links = _slurm_states(layout), machines.link_states(layout)
    rows = [("machine", "address", "link", "daemons", "slurm says")]
    for machine in layout.machines:
        expected = daemons.of_controller(layout) if machine == CONTROLLER else [daemons.slurmd(layout, machine)]
        running = ", ".join(f"{daemon.name}{_flaw(layout, daemon)}" for daemon in expected)
        says = "" if machine == CONTROLLER else states.get(machine, "nothing")
        rows.append((machine, layout.address(machine), links.get(machine, "off"), running, says))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [f"# {layout.spec}; logs in {layout.logs}", f"export SLURM_CONF={shlex.quote(str(layout.slurm_conf))}"]
    return "\n".join([*lines, *table])


def _flaw(layout: Layout, daemon: daemons.Daemon) -> str:
    pids = daemons.pids(layout, daemon)
    if not pids:
        return " (not running)"
    return " (frozen)" if all(processes.stopped(pid) for pid in pids) else ""


def _slurm_states(layout: Layout) -> dict[str, str]:
    try:
        return slurm.node_states(layout)
    except ClusterError:
        return {}
