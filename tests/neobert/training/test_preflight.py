"""A start that cannot succeed ends soon, everywhere, with the name of the node: seen with real processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from neobert.errors import BadStart
from neobert.training.distributed import Ranks
from neobert.training.preflight import check_start
from tests.neobert.conftest import REPOSITORY, TINY
from tests.neobert.training.test_gradients import free_port

PROGRAM = """
import logging, os, sys
from pathlib import Path
from neobert.training import meeting, preflight
from neobert.training.distributed import find_ranks
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
import torch.distributed
torch.version.cuda = os.environ["BUILT_FOR"] or None
exec(os.environ.get("BEFORE", ""))
print("ready", flush=True)
sys.stdin.readline()
ranks = find_ranks(os.environ)
preflight.check_start(ranks, os.environ, Path(sys.argv[1]), 3, use_cpu=True)
group = torch.distributed.get_backend(), torch.distributed.get_world_size(), torch.distributed.get_rank()
ours = torch.tensor(ranks.rank)
torch.distributed.all_reduce(ours)
print(*group, int(ours), flush=True)
torch.distributed.barrier()
os._exit(0)
"""
Process = subprocess.Popen[str]
LIMIT = 4


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterable[Callable[..., Process]]:
    """Starts one rank of several, two on each node; GPUs are hidden, so that it is the same on every machine."""
    processes: list[Process] = []

    def one(rank: int, world_size: int = 2, **environ: str) -> Process:
        nodes = " ".join(f"node{number + 1}" for number in range((world_size + 1) // 2))
        settings = {
            "RANK": str(rank), "LOCAL_RANK": str(rank % 2), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": "2",
            "RECIPE_NODES": nodes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            "RECIPE_PREFLIGHT_SECONDS": str(LIMIT), "TORCH_CPP_LOG_LEVEL": "ERROR", "CUDA_VISIBLE_DEVICES": "",
            "BUILT_FOR": "12.8",
        }  # fmt: skip
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "preflight.json")]
        processes.append(subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | settings | environ, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
        return processes[-1]

    yield one
    for process in processes:
        process.kill()
        process.communicate()


def go(processes: list[Process]) -> None:
    """At once, when all of them have imported what they need: on a busy machine that takes each its time."""
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def finish(processes: list[Process], code: int) -> list[tuple[str, str]]:
    go(processes)
    found = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), found
    return found


def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "preflight.json").read_text())


def test_all_who_come_get_a_process_group_to_train_with(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "preflight.json").write_text("{}")  # of an attempt before
    output = finish([start(rank, 4) for rank in range(4)], 0)
    for rank, (out, _) in enumerate(output):
        assert f"gloo 4 {rank} 6" in out
    assert "all 4 processes on 2 nodes met in " in output[0][0]
    assert not (tmp_path / "preflight.json").exists()


def test_what_the_launcher_wrote_of_another_node_is_kept_until_all_have_come(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """The node without an image is told at once; the main process comes later, and may be ended before its limit."""
    (tmp_path / "preflight.json").write_text('{"attempt": 3, "nodes": ["node2"], "message": "node2: no image"}')
    main = start(0, 4)
    go([main])
    time.sleep(1)
    assert record(tmp_path)["message"] == "node2: no image"


def test_one_that_does_not_come_is_named_within_the_limit(start: Callable[..., Process], tmp_path: Path) -> None:
    output = finish([start(rank, 4) for rank in (0, 1, 2)], 87)
    message = record(tmp_path)["message"]
    assert message.startswith("node2 (process 3) has not come to 127.0.0.1:")
    assert message.endswith(f"within {LIMIT} s")
    reason = f"did not come to the meeting within {LIMIT} s"
    assert record(tmp_path) == {
        "schema": 1, "attempt": 3, "nodes": ["node2"], "message": message, "reason": reason,
    }  # fmt: skip
    assert output[0][1] == f"neobert: bad start: {message}\n"


def test_when_no_other_node_is_there_it_is_the_first_one_that_is_cut_off(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    finish([start(0, 3, LOCAL_WORLD_SIZE="1", RECIPE_NODES="node1 node2 node3")], 87)
    assert record(tmp_path)["nodes"] == ["node1"]
    assert record(tmp_path)["message"].startswith("node1: no other node reached 127.0.0.1:")


def test_without_the_main_process_the_others_name_its_node(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "preflight.json").write_text('{"attempt": 2, "nodes": ["node7"]}')
    output = finish([start(rank, 4, RECIPE_PREFLIGHT_SECONDS="2") for rank in (2, 3)], 87)
    assert record(tmp_path)["nodes"] == ["node1"]
    for _, errors in output:
        assert "node1: cannot be reached; seen from node2, nobody answered at 127.0.0.1:" in errors
        assert "for 2 s (Connection refused)" in errors


def test_a_node_without_its_gpus_ends_all_and_is_the_only_one_named(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """Nobody has to wait for the limit."""
    fine = [start(rank, 4, RECIPE_PREFLIGHT_SECONDS="59") for rank in (0, 1)]
    lacking = [start(rank, 4, RECIPE_GPUS_PER_NODE="8", RECIPE_PREFLIGHT_SECONDS="59") for rank in (2, 3)]
    begin = time.monotonic()
    finish([*fine, *lacking], 87)
    assert time.monotonic() - begin < 40
    assert record(tmp_path)["nodes"] == ["node2"]
    assert record(tmp_path)["message"].startswith("node2: 8 GPUs were asked for, 0 are visible (CUDA_VISIBLE_DEVICES=")
    assert record(tmp_path)["message"].count("asked for") == 1  # two processes saw it
    assert record(tmp_path)["reason"] == "8 GPUs were asked for, 0 are visible"


def test_what_two_nodes_lack_is_the_fault_of_neither(start: Callable[..., Process], tmp_path: Path) -> None:
    finish([start(rank, 4, RECIPE_GPUS_PER_NODE="8") for rank in range(4)], 87)
    assert record(tmp_path)["nodes"] == []
    assert record(tmp_path)["message"].startswith("node1: 8 GPUs were asked for, 0 are visible (CUDA_VISIBLE")
    assert "; node2: 8 GPUs were asked for" in record(tmp_path)["message"]


def test_a_build_without_gpu_support_is_no_nodes_fault(start: Callable[..., Process], tmp_path: Path) -> None:
    """Every node has the same image: to start without this one would only find the next."""
    finish([start(0, 4, RECIPE_GPUS_PER_NODE="8", BUILT_FOR=""), *(start(rank, 4) for rank in (1, 2, 3))], 87)
    assert record(tmp_path)["nodes"] == []
    assert record(tmp_path)["message"].startswith("8 GPUs were asked for, 0 are visible: PyTorch ")
    assert " is built without GPU support. Use an image with a build for GPUs, or set " in record(tmp_path)["message"]


def test_a_main_process_that_dies_ends_the_others_at_once(start: Callable[..., Process], tmp_path: Path) -> None:
    die = "import time; meeting.Meeting._sum = lambda self, store: (time.sleep(2), os._exit(9))"
    main, other = start(0, 4, RECIPE_PREFLIGHT_SECONDS="59", BEFORE=die), start(2, 4, RECIPE_PREFLIGHT_SECONDS="59")
    go([main, other])
    begin = time.monotonic()
    assert other.wait(240) == 87
    assert time.monotonic() - begin < 40
    assert main.wait() == 9
    assert "node2: the main process, on node1, is gone: " in other.stderr.read()
    assert record(tmp_path)["nodes"] == []


def test_a_sum_that_gets_stuck_is_not_blamed_on_anybody(start: Callable[..., Process], tmp_path: Path) -> None:
    stuck = "import time; meeting.Meeting._sum = lambda self, store: time.sleep(100)"
    finish([start(0), start(1, BEFORE=stuck)], 87)
    assert record(tmp_path)["nodes"] == []
    assert "all 2 processes met" in record(tmp_path)["message"]
    assert f"did not come to its end within {LIMIT} s on node1 (processes 0, 1)" in record(tmp_path)["message"]


def test_a_sum_that_comes_out_wrong_is_a_bad_start(start: Callable[..., Process], tmp_path: Path) -> None:
    wrong = "import torch; torch.Tensor.item = lambda self: 4"
    finish([start(0, BEFORE=wrong), start(1)], 87)
    assert "a sum over all processes came out as 4 instead of 3" in record(tmp_path)["message"]


def test_a_port_that_is_taken_is_no_nodes_fault(start: Callable[..., Process], tmp_path: Path, port: int) -> None:
    with closing(socket.socket()) as other:
        other.bind(("", port))
        other.listen()
        _, errors = finish([start(0)], 87)[0]
    assert f"node1: the meeting at 127.0.0.1:{port} cannot be opened: another program uses that port" in errors
    assert record(tmp_path)["nodes"] == []


def test_a_single_process_needs_its_gpus_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    path = tmp_path / "preflight.json"
    environ = {"RECIPE_GPUS_PER_NODE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2"}
    with pytest.raises(BadStart, match="node9: 4 GPUs were asked for, 3 are visible"):
        check_start(Ranks(hosts=("node9",)), environ, path, 1)
    assert record(tmp_path)["nodes"] == ["node9"]
    check_start(Ranks(hosts=("node9",)), environ | {"RECIPE_GPUS_PER_NODE": "3"}, path, 2)
    assert not path.exists()


def test_the_command_ends_with_87_and_a_message(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=rte", "data.generated=16", "--output-dir",
               str(tmp_path)]  # fmt: skip
    environ = os.environ | {"RECIPE_GPUS_PER_NODE": "99", "RECIPE_NODES": "node5", "RECIPE_ATTEMPT": "4"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True)
    assert done.returncode == 87
    assert re.match(r"neobert: bad start: (node5: )?99 GPUs were asked for, ", done.stderr)
    assert record(tmp_path)["attempt"] == 4
