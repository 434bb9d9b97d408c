"""Which process of how many this is, from torchrun's environment or Slurm's."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from neobert.errors import RunError

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


@dataclass(frozen=True)
class Ranks:
    """This process among all (`rank`) and among those of its node (`local_rank`)."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """The one process that writes files."""
        return self.rank == 0


def find_ranks(environ: MutableMapping[str, str]) -> Ranks:
    """Reads the ranks and writes them to `environ` under torchrun's names, where torch, accelerate and DeepSpeed look.

    RANK and its fellows win; otherwise Slurm's numbers are used, but only inside a step of several tasks, because a
    batch script and an interactive shell have SLURM_NTASKS as well. Otherwise this is the only process. Raises
    `RunError` when only some of the variables are there: guessing the others would start several "first" processes.
    """
    if any(name in environ for name in _TORCHRUN):
        numbers = _numbers(environ, _TORCHRUN)
    elif "SLURM_STEP_ID" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1:
        numbers = _numbers(environ, _SLURM)
    else:
        return Ranks()
    ranks = Ranks(*numbers)
    if ranks.world_size > 1:
        missing = [name for name in _RENDEZVOUS if environ.get(name, "0") in ("", "0")]
        if missing:
            raise RunError(
                f"process {ranks.rank} of {ranks.world_size} does not know where to meet the others: "
                f"{' and '.join(missing)} must be set, to the host name of the first and a free port there"
            )
    environ.update(zip(_TORCHRUN, map(str, numbers), strict=True))
    return ranks


def _numbers(environ: MutableMapping[str, str], names: tuple[str, ...]) -> list[int]:
    missing = [name for name in names if not environ.get(name, "").isdigit()]
    if missing:
        found = ", ".join(f"{name}={environ.get(name, '(unset)')}" for name in names)
        raise RunError(f"the number of this process is unclear: expected {', '.join(names)} as numbers, found {found}")
    return [int(environ[name]) for name in names]
