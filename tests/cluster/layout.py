"""What one cluster consists of, as values: its size, its addresses and its paths. Nothing here acts."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from tests.cluster.errors import ClusterError

GPUS_PER_NODE = 8
MAX_NODES = 200
LONGEST_DIR = 80  # a Unix socket below it may have 107 bytes

SWITCH, CONTROLLER = "switch", "ctl"
# Not Slurm's own 6817-6819. The machines have addresses of their own, so no two clusters can collide here.
SLURMCTLD_PORT, SLURMD_PORT, SLURMDBD_PORT = 26817, 26818, 26819


def default_dir() -> Path:
    return Path(tempfile.gettempdir()).resolve() / f"slurm-test-cluster-{os.getuid()}"


def command(directory: Path, action: str) -> str:
    """What to type for that, in messages."""
    place = "" if directory == default_dir() else f" --dir {directory}"
    return f"`python -m tests.cluster {action}{place}`"


def short_id(directory: Path) -> str:
    """Eight characters that tell two clusters apart, for names outside their directories (network interface)."""
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]


@dataclass(frozen=True)
class Spec:
    """What is asked for. `settings` are lines of slurm.conf that replace ours or come on top, by key."""

    nodes: int = 4
    accounting: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise ClusterError(f"a cluster has 1 to {MAX_NODES} nodes, not {self.nodes}")

    def __str__(self) -> str:
        accounting = "with accounting" if self.accounting else "without accounting"
        return ", ".join([f"{self.nodes} nodes", accounting, *(f"{k}={v}" for k, v in self.settings.items())])


@dataclass(frozen=True)
class Layout:
    """A Spec at its place: a directory (absolute, without links) and a /24 network ("198.18.7")."""

    dir: Path
    spec: Spec
    network: str

    @property
    def nodes(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.spec.nodes + 1)]

    @property
    def machines(self) -> list[str]:
        """All that have a hostname and an address; the switch has neither."""
        return [CONTROLLER, *self.nodes]

    @property
    def host_address(self) -> str:
        """The address of the real machine, where clients run, in the cluster's network."""
        return f"{self.network}.1"

    def address(self, machine: str) -> str:
        return f"{self.network}.{2 if machine == CONTROLLER else 10 + int(machine.removeprefix('node'))}"

    def hardware_address(self, machine: str) -> str:
        """The same after each boot, since the others remember it."""
        return "02:00:" + ":".join(f"{int(number):02x}" for number in self.address(machine).split("."))

    @property
    def host_interface(self) -> str:
        return host_interface(self.dir)

    @cached_property
    def etc(self) -> Path:
        return self.dir / "etc"

    @cached_property
    def run(self) -> Path:
        """Sockets, process ids, and what the daemons keep."""
        return self.dir / "run"

    @cached_property
    def logs(self) -> Path:
        return self.dir / "log"

    @cached_property
    def local(self) -> Path:
        """Node-local disk: the same path on every machine, with contents of its own on each."""
        return self.dir / "local"

    @cached_property
    def mounts(self) -> Path:
        """What is mounted below it on the host, at any time, is seen on all machines: a small disk, a read-only one."""
        return self.dir / "mounts"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.run / "munge.socket"

    def machine_dir(self, machine: str) -> Path:
        return self.dir / "machines" / machine

    def local_on(self, machine: str) -> Path:
        """Where the host sees the node-local disk of that machine."""
        return self.machine_dir(machine) / "local"

    def log(self, daemon: str, machine: str = CONTROLLER) -> Path:
        return self.logs / (f"{daemon}.log" if machine == CONTROLLER else f"{daemon}-{machine}.log")


def host_interface(directory: Path) -> str:
    return f"slurm{short_id(directory)}"  # 13 of the 15 characters that Linux allows


@dataclass(frozen=True)
class State:
    """The file that makes a directory a cluster's: its layout, and whether `up` came to its end."""

    layout: Layout
    ready: bool

    @staticmethod
    def path(directory: Path) -> Path:
        return directory / "cluster.json"

    def write(self) -> None:
        content = {"spec": asdict(self.layout.spec), "network": self.layout.network, "ready": self.ready}
        path = self.path(self.layout.dir)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(path)

    @classmethod
    def read(cls, directory: Path) -> State | None:
        """None when there is no cluster; a file that cannot be read stands for an `up` that was cut short."""
        try:
            content = json.loads(cls.path(directory).read_text())
            return cls(Layout(directory, Spec(**content["spec"]), content["network"]), content["ready"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            return cls(Layout(directory, Spec(), "0.0.0"), ready=False)
