"""Ranks come from torchrun's variables, from a Slurm step, or there is one process; never from half of them."""

from __future__ import annotations

import pytest

from neobert.errors import RunError
from neobert.training.distributed import Ranks, find_ranks

MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456"}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", **MEETING}
SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", **MEETING}


def test_torchrun_wins_over_slurm() -> None:
    assert find_ranks(TORCHRUN | SLURM) == Ranks(3, 1, 4)


def test_a_slurm_step_gives_the_numbers_under_torchruns_names() -> None:
    environ = dict(SLURM)
    ranks = find_ranks(environ)
    assert (ranks, ranks.is_main) == (Ranks(5, 1, 8), False)
    assert {name: environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} == {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8",
    }  # fmt: skip


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"},  # the batch script itself, no step
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"},
    ],
)
def test_otherwise_there_is_one_process_and_nothing_is_set(environ: dict[str, str]) -> None:
    before = dict(environ)
    ranks = find_ranks(environ)
    assert (ranks, ranks.is_main) == (Ranks(0, 0, 1), True)
    assert environ == before


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
def test_half_of_torchruns_variables_are_an_error(missing: str) -> None:
    with pytest.raises(RunError, match=rf"{missing}=\(unset\)"):
        find_ranks({name: value for name, value in TORCHRUN.items() if name != missing})


@pytest.mark.parametrize("base", [TORCHRUN, SLURM])
def test_several_processes_must_know_where_to_meet(base: dict[str, str]) -> None:
    with pytest.raises(RunError, match="MASTER_PORT must be set"):
        find_ranks({name: value for name, value in base.items() if name != "MASTER_PORT"})
    with pytest.raises(RunError, match="MASTER_PORT must be set"):
        find_ranks(base | {"MASTER_PORT": "0"})
