"""What the cluster asks of its own Slurm, through the same commands that users have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.processes import wait_for

# Also of a job in which the tests may themselves be running, and of settings for another cluster.
FOREIGN_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_", "SCONTROL_")
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def client_environment(layout: Layout, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The given environment, made to point to this cluster."""
    own = {name: value for name, value in environment.items() if not name.startswith(FOREIGN_PREFIXES)}
    path = own.get("PATH", "/usr/bin:/bin").split(":")
    own["PATH"] = ":".join([*path, *(directory for directory in SBIN if directory not in path)])
    own["SLURM_CONF"] = str(layout.slurm_conf)
    return own


def run(layout: Layout, argv: Sequence[str], *, timeout: float = 60) -> str:
    """Its standard output."""
    try:
        result = subprocess.run(argv, env=client_environment(layout), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(argv)}` did not answer within {timeout:g} s; see {layout.logs}") from None
    if result.returncode:
        message = (result.stderr or result.stdout).strip()
        raise ClusterError(f"`{' '.join(argv)}` failed with exit code {result.returncode}: {message}")
    return result.stdout


def node_states(layout: Layout) -> dict[str, str]:
    """node -> sinfo's word for it: idle, mixed, allocated, down, drained, ... with a "*" when it does not respond."""
    rows = run(layout, ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T"]).splitlines()
    return dict(row.split() for row in rows)


def job_ids(layout: Layout) -> list[str]:
    """All jobs that are pending, running or completing, an array once."""
    return sorted(set(run(layout, ["squeue", "--noheader", "--format=%F"]).split()))


def job(layout: Layout, job_id: str) -> dict[str, str]:
    """What `scontrol show job` says of one job or array element ("12", "12_3"): JobState, Reason, Restarts, ..."""
    words = run(layout, ["scontrol", "--oneliner", "show", "job", job_id]).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def cancel_all(layout: Layout) -> None:
    if jobs := job_ids(layout):
        run(layout, ["scancel", "--quiet", *jobs])


def wait_idle(layout: Layout, timeout: float) -> None:
    """Until no job is left in the queue and every node is idle."""

    def is_idle() -> bool:
        return not job_ids(layout) and set(node_states(layout).values()) == {"idle"}

    def complaint() -> str:
        jobs, nodes = run(layout, ["squeue"]), run(layout, ["sinfo", "--Node", "--long"])
        return f"the cluster is not idle after {timeout:g} s.\n{jobs}{nodes}Read the logs in {layout.logs}"

    wait_for(is_idle, timeout, complaint)


def resume(layout: Layout, *nodes: str) -> None:
    """Takes nodes that are down or drained back; does nothing to those that need no resuming."""
    refusals: list[str] = []

    def nothing_to_resume() -> bool:
        out = [node for node, state in node_states(layout).items() if state.startswith(("down", "drain"))]
        for node in set(out).intersection(nodes):
            try:
                run(layout, ["scontrol", "update", f"nodename={node}", "state=resume"])
            except ClusterError as error:  # a slurmctld that was just started refuses, until it has heard of the node
                refusals.append(str(error))
                return False
        return True

    wait_for(nothing_to_resume, 30, lambda: refusals[-1])


def drain(layout: Layout, node: str) -> None:
    run(layout, ["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"])
