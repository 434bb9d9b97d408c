"""The cluster as one object: up, down, and what tests do with it in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.cluster import config, daemons, faults, machines, processes, requirements, slurm
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTROLLER, GPUS_PER_NODE, LONGEST_DIR, Layout, Spec, State, command, default_dir
from tests.cluster.locks import locked
from tests.cluster.processes import wait_for

CLIENTS = ["srun", "sbatch", "salloc", "sattach", "scancel", "scontrol", "squeue", "sinfo", "sacct", "sacctmgr"]


class Cluster:
    """Everything of it lies below one directory, by which other processes find it too."""

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        nodes: int = 4,
        accounting: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            directory: what it keeps, all of it; empty or new before `up`, gone after `down`. A short path.
            accounting: whether to run slurmdbd and MariaDB, for sacct.
            settings: lines of slurm.conf to replace or add, as {"MaxArraySize": "1001"}.
        """
        self.dir = Path(directory).resolve() if directory else default_dir()
        self.spec = Spec(nodes, accounting, {key: str(value) for key, value in (settings or {}).items()})

    # -- up and down ------------------------------------------------------------------------------------------

    def up(self) -> bool:
        """Returns when all nodes are idle: True if this started it, False if it was up already."""
        if reason := requirements.missing():
            raise ClusterError(reason)
        if len(os.fsencode(self.dir)) > LONGEST_DIR:
            raise ClusterError(f"{self.dir} is too long for sockets below it: at most {LONGEST_DIR} bytes")
        with self._lock():
            state = State.read(self.dir)
            if state and self._runs(state):
                if state.layout.spec != self.spec:
                    raise ClusterError(
                        f"a cluster with {state.layout.spec} is up in {self.dir}, not one with {self.spec}: "
                        f"end it with {command(self.dir, 'down')} first"
                    )
                return False
            self._remove()
            try:
                self._start()
            except BaseException:
                machines.end_all(self.dir)  # and keep the logs, for whoever reads the message
                raise
        return True

    def down(self) -> bool:
        """Leaves nothing of it, in whatever state it was: True if there was something."""
        with self._lock():
            existed = State.read(self.dir) is not None or bool(processes.marked(self.dir))
            self._remove()
        return existed

    @property
    def is_up(self) -> bool:
        """Whether `up` went through and the controller's machine still runs; a node or daemon may be down."""
        state = State.read(self.dir)
        return state is not None and self._runs(state)

    # -- in between -------------------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """Addresses and paths; of the cluster that is up, whatever this object would have started."""
        state = State.read(self.dir)
        if state is None or not state.ready:
            raise ClusterError(f"no cluster is up in {self.dir}: start it with {command(self.dir, 'up')}")
        return state.layout

    @property
    def env(self) -> dict[str, str]:
        """The whole environment for Slurm's commands: this process's, with SLURM_CONF, and PATH if it needs more."""
        return slurm.client_environment(self.layout)

    def run(self, argv: Sequence[str], *, timeout: float = 60) -> str:
        """Standard output of a command that ran on the host, as on a login node; a ClusterError if it failed."""
        return slurm.run(self.layout, argv, timeout=timeout)

    def on(self, machine: str, argv: Sequence[str], *, timeout: float = 60) -> str:
        """The same for a command on a node (or on "ctl"), as if logged in there."""
        return slurm.run(self.layout, machines.inside(self.layout, machine, argv), timeout=timeout)

    def fault(self, kind: str, node: str | None = None) -> None:
        """See `faults.OF_A_NODE` and `faults.OF_THE_CONTROLLER` for the kinds."""
        faults.inject(self.layout, kind, node)

    def heal(self) -> None:
        """Undoes every fault, cancels every job, and returns when all nodes are idle."""
        faults.heal(self.layout)
        self.cancel_all()
        self.wait_idle()

    def wait_idle(self, timeout: float = 120) -> None:
        """Returns when no job is left and all nodes are idle.

        That can take a minute: so long slurmctld waits before it tells a node again to end a job that ended while
        slurmctld was away.
        """
        slurm.wait_idle(self.layout, timeout)

    def node_states(self) -> dict[str, str]:
        """node -> idle, mixed, allocated, down, drained, ..., with a "*" while it does not respond."""
        return slurm.node_states(self.layout)

    def submit(self, argv: Sequence[str]) -> str:
        """The id of the job that `sbatch` with these arguments made."""
        return self.run(["sbatch", "--parsable", *argv]).strip()

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says of one job or array element ("12", "12_3"): JobState, Reason, Restarts, ..."""
        return slurm.job(self.layout, job_id)

    def cancel_all(self) -> None:
        """Does not wait until they are gone."""
        slurm.cancel_all(self.layout)

    def wait_for_job(self, job_id: str, *states: str, timeout: float = 60) -> dict[str, str]:
        """`job(job_id)` as soon as its JobState is one of `states`."""
        seen: dict[str, str] = {}

        def reached() -> bool:
            seen.update(self.job(job_id))
            return seen["JobState"] in states

        wait_for(reached, timeout, lambda: f"job {job_id} is not {' or '.join(states)} after {timeout:g} s: {seen}")
        return seen

    # -- how --------------------------------------------------------------------------------------------------

    def _lock(self) -> AbstractContextManager[None]:
        self.dir.parent.mkdir(parents=True, exist_ok=True)
        return locked(self.dir.with_name(f"{self.dir.name}.lock"))

    def _runs(self, state: State) -> bool:
        return state.ready and CONTROLLER in processes.first_processes(self.dir)

    def _start(self) -> None:
        with machines.network_lock():
            layout = Layout(self.dir, self.spec, machines.find_network(self.dir))
            self._write_files(layout)
            machines.share_mounts(layout)
            machines.start_switch(layout)
        for machine in layout.machines:
            machines.start(layout, machine)
        for daemon in daemons.of_controller(layout):
            daemons.start(layout, daemon)
        for node in layout.nodes:
            daemons.launch(layout, daemons.slurmd(layout, node))
        for node in layout.nodes:
            daemons.await_ready(layout, daemons.slurmd(layout, node))
        slurm.wait_idle(layout, timeout=60)
        State(layout, ready=True).write()

    def _write_files(self, layout: Layout) -> None:
        self.dir.mkdir()
        State(layout, ready=False).write()  # first of all, so that `down` knows this directory for a cluster's
        for directory in (layout.etc, layout.run, layout.logs, layout.local, layout.mounts, self.dir / "gpu"):
            directory.mkdir()
        for number in range(GPUS_PER_NODE):
            (self.dir / "gpu" / f"nvidia{number}").symlink_to("/dev/null")
        files = {
            "slurm.conf": config.slurm_conf(layout),
            "gres.conf": config.gres_conf(layout),
            "cgroup.conf": config.cgroup_conf(),
            "slurmdbd.conf": config.slurmdbd_conf(layout),
            "mariadb.conf": config.mariadb_conf(layout),
        }
        for name, text in files.items():
            (layout.etc / name).write_text(text)
        (layout.etc / "slurmdbd.conf").chmod(0o600)

    def _remove(self) -> None:
        """A directory is ours to remove by its state file, by what runs of it, or when there is nothing in it."""
        ours = State.read(self.dir) or processes.marked(self.dir)
        if not ours and self.dir.exists() and any(self.dir.iterdir()):
            raise ClusterError(f"{self.dir} holds something else than a test cluster: choose another directory")
        clients = processes.with_environment(f"SLURM_CONF={self.dir}/etc/slurm.conf", CLIENTS)
        machines.end_all(self.dir)
        processes.end(clients)
        if self.dir.exists():
            shutil.rmtree(self.dir)
