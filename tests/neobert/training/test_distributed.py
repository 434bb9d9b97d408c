"""Ranks come from torchrun's variables, from a Slurm step, or there is one process; never from half of them."""

from __future__ import annotations

import pytest

from neobert.errors import RunError
from neobert.training.distributed import Ranks, expand_hosts, find_ranks

MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456"}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", **MEETING}
SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "0", **MEETING}


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
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0"},
        # A shell that salloc has opened on a node: a step of one task, with the number of the allocation's.
        {
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_NTASKS": "4",
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_STEP_ID": "4294967290",
        },
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


IN_STEP = {
    "SLURM_PROCID": "3", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "gpu-[01-02],login1", "SLURM_STEP_TASKS_PER_NODE": "2,1(x2)",
    "SLURM_JOB_NODELIST": "other",
}  # fmt: skip


def test_a_step_of_any_shape_says_where_to_meet_and_who_is_where() -> None:
    environ = IN_STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
    ranks = find_ranks(environ)
    assert ranks == Ranks(3, 0, 5, 2, ("gpu-01", "gpu-01", "gpu-02", "gpu-02", "login1"))
    assert environ["MASTER_ADDR"] == "gpu-01"
    assert 10000 <= int(environ["MASTER_PORT"]) < 30000
    assert environ["LOCAL_WORLD_SIZE"] == "2"


def test_ranks_that_are_dealt_out_like_cards_have_no_known_order() -> None:
    """`srun --distribution=cyclic`: the third of five processes is the first of node 3."""
    environ = IN_STEP | {"SLURM_PROCID": "2", "SLURM_DISTRIBUTION": "cyclic", "SLURM_NODEID": "2",
                         "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}  # fmt: skip
    assert find_ranks(environ) == Ranks(2, 0, 5, 1, ())


def test_all_processes_of_a_step_take_the_same_port_and_other_starts_take_others() -> None:
    def port(**changes: str) -> str:
        environ = IN_STEP | changes
        find_ranks(environ)
        return environ["MASTER_PORT"]

    assert port() == port(SLURM_PROCID="0", SLURM_LOCALID="1")
    others = [port(SLURM_JOB_ID="4712"), port(SLURM_STEP_ID="1"), port(SLURM_RESTART_COUNT="1"),
              port(SLURM_ARRAY_TASK_ID="1")]  # fmt: skip
    assert len({port(), *others}) == 5


def test_what_the_job_script_says_goes_before_what_slurm_says() -> None:
    environ = IN_STEP | MEETING | {"RECIPE_NODES": "a b c d e", "SLURM_STEP_TASKS_PER_NODE": "1(x5)"}
    assert find_ranks(environ).hosts == ("a", "b", "c", "d", "e")
    assert (environ["MASTER_ADDR"], environ["MASTER_PORT"]) == ("node1", "23456")


def test_processes_that_the_script_started_itself_know_their_node() -> None:
    assert find_ranks(TORCHRUN | {"RECIPE_NODES": "a b"}) == Ranks(3, 1, 4, 2, ("a", "a", "b", "b"))
    assert find_ranks({"RECIPE_NODES": "a"}) == Ranks(hosts=("a",))


def test_a_batch_script_is_not_a_step_also_where_slurm_gives_it_a_negative_number() -> None:
    """Slurm 26.05 does. The allocation's nodes and tasks then say nothing of processes that torchrun started."""
    batch = {"SLURM_STEP_ID": "-5", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[1-4]",
             "SLURM_TASKS_PER_NODE": "1(x4)", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}  # fmt: skip
    assert find_ranks(TORCHRUN | batch) == find_ranks(dict(TORCHRUN))
    assert find_ranks(dict(batch)) == Ranks()


def test_who_is_where_is_left_open_rather_than_guessed() -> None:
    """Three nodes cannot share four processes evenly, and nothing tells who has two."""
    assert find_ranks(TORCHRUN | {"RECIPE_NODES": "a b c"}).hosts == ()


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("login1", "login1"),
        ("gpu-[001-003,07],login1", "gpu-001 gpu-002 gpu-003 gpu-07 login1"),
        ("n[9-11]", "n9 n10 n11"),
        ("n[08-10]x", "n08x n09x n10x"),
        ("rack[1-2]n[01,5]-ib", "rack1n01-ib rack1n5-ib rack2n01-ib rack2n5-ib"),
        ("a[1-2],b[3],c", "a1 a2 b3 c"),
    ],
)
def test_slurms_short_form_of_host_names(text: str, hosts: str) -> None:
    assert expand_hosts(text) == hosts.split()


@pytest.mark.parametrize("text", ["a[1-2", "a]", "a[x]", "a[]", "a,,b", "a[1-2-3]"])
def test_a_list_of_hosts_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(RunError, match="the list of nodes cannot be read"):
        expand_hosts(text)
