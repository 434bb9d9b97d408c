"""Which process of how many this is and where all of them meet, from torchrun's environment or Slurm's.

Nothing else is needed to start: no ssh, no host file, no MPI. What is found is written back to the environment under
torchrun's names, which torch, accelerate and DeepSpeed read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from neobert.errors import RunError

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS")
"""SLURM_NTASKS is no word of the step: a shell that salloc opened on a node is one task, and has the allocation's."""
_PORTS = range(10000, 30000)
"""Below the ports that Linux gives to outgoing connections (from 32768)."""


@dataclass(frozen=True)
class Ranks:
    """This process among all (`rank` of `world_size`) and among those of its node (`local_rank`)."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    hosts: tuple[str, ...] = ()
    """The node of every rank, in order; empty where the environment does not tell."""

    @property
    def is_main(self) -> bool:
        """The one process that writes files."""
        return self.rank == 0


def find_ranks(environ: MutableMapping[str, str]) -> Ranks:
    """Reads the ranks and the meeting place, and writes them to `environ` under torchrun's names.

    RANK and its fellows win; otherwise Slurm's numbers are used, but only inside a step of several tasks. Otherwise
    this is the only process. Raises `RunError` when only some of the variables are there: guessing the others would
    start several "first" processes.
    """
    in_step = _is_in_step(environ)
    if any(name in environ for name in _TORCHRUN):
        rank, local_rank, world_size = _numbers(environ, _TORCHRUN)
    elif in_step and _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        rank, local_rank, world_size = _numbers(environ, _SLURM)
    else:
        return Ranks(hosts=tuple(environ.get("RECIPE_NODES", "").split()[:1]))
    nodes, counts = _nodes(environ), _tasks_per_node(environ) if in_step else []
    if sum(counts) != world_size:
        # Not known, or not of this step: every node has as many as the next.
        local = max(1, _number(environ, "LOCAL_WORLD_SIZE", world_size // len(nodes) if nodes else 1))
        counts = [local] * max(1, world_size // local)
    in_order = environ.get("SLURM_DISTRIBUTION", "block").startswith("block") or not in_step
    fits = in_order and len(nodes) == len(counts) and sum(counts) == world_size
    hosts = [node for node, count in zip(nodes, counts, strict=True) for _ in range(count)] if fits else []
    place = _number(environ, "SLURM_NODEID", 0) if in_step else 0
    local_world_size = hosts.count(hosts[rank]) if hosts else counts[min(place, len(counts) - 1)]
    if world_size > 1:
        _find_meeting_place(environ, rank, world_size, nodes if in_step else [])
    environ.update(RANK=str(rank), LOCAL_RANK=str(local_rank), WORLD_SIZE=str(world_size))
    environ.setdefault("LOCAL_WORLD_SIZE", str(local_world_size))
    return Ranks(rank, local_rank, world_size, local_world_size, tuple(hosts))


def _is_in_step(environ: MutableMapping[str, str]) -> bool:
    """Tell whether srun started this process; since 26.05 batch scripts have a negative SLURM_STEP_ID."""
    return environ.get("SLURM_STEP_ID", "").isdigit()


def expand_hosts(text: str) -> list[str]:
    """The host names in Slurm's short form: `gpu-[01-03,7],login1` -> gpu-01, gpu-02, gpu-03, gpu-7, login1.

    What `scontrol show hostnames` does, which is not there in a container. Raises `RunError` for anything else.
    """
    # An item ends at a comma, but not at one inside of brackets.
    items = re.findall(r"(?:[^\[\],]|\[[^\[\]]*\])+", text)
    if ",".join(items) != text:
        raise RunError(f"the list of nodes cannot be read: {text!r}")
    return [host for item in items for host in _expand(item, text)]


def _expand(item: str, text: str) -> Iterator[str]:
    head, bracket, rest = item.partition("[")
    if not bracket:
        yield item
        return
    ranges, _, tail = rest.partition("]")
    for part in ranges.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if bounds is None:
            raise RunError(f"the list of nodes cannot be read: {text!r}")
        first, last = bounds[1], bounds[2] or bounds[1]
        for number in range(int(first), int(last) + 1):
            yield from (f"{head}{number:0{len(first)}}{end}" for end in _expand(tail, text))


def _nodes(environ: MutableMapping[str, str]) -> list[str]:
    """The nodes of all processes, in the order of their ranks, where the environment tells."""
    if "RECIPE_NODES" in environ:
        return environ["RECIPE_NODES"].split()
    if not _is_in_step(environ):
        return []  # the allocation of a batch script or shell says nothing of where these processes are
    return expand_hosts(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", ""))


def _tasks_per_node(environ: MutableMapping[str, str]) -> list[int]:
    """Slurm's `2(x3),1` -> 2, 2, 2, 1."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts


def _find_meeting_place(environ: MutableMapping[str, str], rank: int, world_size: int, nodes: list[str]) -> None:
    missing = [name for name in _RENDEZVOUS if environ.get(name, "0") in ("", "0")]
    if "MASTER_ADDR" in missing and nodes:
        environ["MASTER_ADDR"] = nodes[0]
    if "MASTER_PORT" in missing and environ.get("SLURM_JOB_ID"):
        environ["MASTER_PORT"] = str(_port(environ))
    missing = [name for name in missing if environ.get(name, "0") in ("", "0")]
    if missing:
        raise RunError(
            f"process {rank} of {world_size} does not know where to meet the others: "
            f"{' and '.join(missing)} must be set, to the host name of the first and a free port there"
        )


def _port(environ: MutableMapping[str, str]) -> int:
    """The same in all processes of a step, and hardly ever that of another step or of the job's start before."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    text = ":".join(environ.get(name, "") for name in names)
    return _PORTS[zlib.crc32(text.encode()) % len(_PORTS)]


def _numbers(environ: MutableMapping[str, str], names: tuple[str, ...]) -> list[int]:
    missing = [name for name in names if not environ.get(name, "").isdigit()]
    if missing:
        found = ", ".join(f"{name}={environ.get(name, '(unset)')}" for name in names)
        raise RunError(f"the number of this process is unclear: expected {', '.join(names)} as numbers, found {found}")
    return [int(environ[name]) for name in names]


def _number(environ: MutableMapping[str, str], name: str, default: int) -> int:
    return _numbers(environ, (name,))[0] if name in environ else default
