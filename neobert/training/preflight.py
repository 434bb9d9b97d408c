"""A look before the start: a node without its GPUs, or one that others cannot reach, is found and named in a minute.

Without it, a start in which one of many processes is missing waits for half an hour and then blames whoever gave up
first. What makes a start hopeless is written to preflight.json, for the launcher to start again without that node.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path

from neobert.errors import BadStart, RunError
from neobert.training.distributed import Ranks
from neobert.training.faults import Fault, is_recorded, write_record
from neobert.training.meeting import Meeting, Start

DEFAULT_LIMIT = 45.0
LONGEST_LIMIT = 60.0


def check_start(
    ranks: Ranks, environ: Mapping[str, str], record: Path, attempt: int | None = None, use_cpu: bool = False
) -> None:
    """Returns when all processes have met, with torch's default process group ready for the training.

    Raises `BadStart`, or ends the process with its exit code where it may be blocked in a library. Costs nothing for a
    single process that needs no GPU. Reads RECIPE_GPUS_PER_NODE (as many must be in sight) and
    RECIPE_PREFLIGHT_SECONDS, the limit for all of it.
    """
    gpus = int(_number(environ, "RECIPE_GPUS_PER_NODE", 0))
    if ranks.world_size == 1 and not gpus:
        return
    import torch.distributed  # noqa: F401  # before the clock starts: it takes seconds, and is needed in any case

    limit = min(_number(environ, "RECIPE_PREFLIGHT_SECONDS", DEFAULT_LIMIT), LONGEST_LIMIT)
    node = ranks.hosts[ranks.rank] if ranks.hosts else environ.get("SLURMD_NODENAME") or socket.gethostname()
    start = Start(ranks, node, use_cpu, limit, time.monotonic(), record, attempt)
    # That of this attempt is the launcher's, which wrote it on a node without the image.
    if ranks.is_main and not is_recorded(record, attempt):
        record.unlink(missing_ok=True)
    fault = _missing_gpus(node, gpus, environ) if gpus else None
    if ranks.world_size > 1:
        Meeting(start, environ).hold(fault)
        if ranks.is_main:
            record.unlink(missing_ok=True)  # all have come
    elif fault:
        write_record(record, attempt, fault)
        raise BadStart(fault.message)


def _missing_gpus(node: str, asked: int, environ: Mapping[str, str]) -> Fault | None:
    import torch

    found = torch.cuda.device_count()
    if found >= asked:
        return None
    were, are = "GPU was" if asked == 1 else "GPUs were", "is" if found == 1 else "are"
    reason = f"{asked} {were} asked for, {found} {are} visible"
    if torch.version.cuda is None and torch.version.hip is None:  # as on every node: all have this image, or Python
        reason += f": PyTorch {torch.__version__} is built without GPU support"
        return Fault(f"{reason}. Use an image with a build for GPUs, or set resources.gpus_per_node to 0", (), reason)
    visible = environ.get("CUDA_VISIBLE_DEVICES", "(unset)")
    return Fault(f"{node}: {reason} (CUDA_VISIBLE_DEVICES={visible})", (node,), reason)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environ.get(name) or default)
    except ValueError:
        raise RunError(f"{name}: expected a number, found {environ[name]!r}") from None
