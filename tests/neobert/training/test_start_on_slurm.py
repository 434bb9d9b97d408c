"""The start of several processes under a real srun, with nothing but Slurm's own variables to go by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster import Cluster
from tests.neobert.conftest import REPOSITORY

PROGRAM = """
import os, sys
from pathlib import Path
from neobert.training.distributed import find_ranks
from neobert.training.preflight import check_start
if os.environ["SLURMD_NODENAME"] == sys.argv[2]:
    sys.exit(0)  # as one would be missing that never started
ranks = find_ranks(os.environ)
check_start(ranks, os.environ, Path(sys.argv[1]) / "preflight.json", 1, use_cpu=True)
import torch
ours = torch.tensor(ranks.rank)
torch.distributed.all_reduce(ours)
names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
told = [os.environ[name] for name in names]
print(ranks.rank, os.uname().nodename, *ranks.hosts, int(ours), *told, flush=True)
torch.distributed.barrier()
os._exit(0)
"""
STEP = ["srun", "--nodes=3", "--nodelist=node[2-4]", "--ntasks=5"]  # Slurm puts 3, 1 and 1 there, or 2, 2 and 1


def srun(cluster: Cluster, tmp_path: Path, missing: str = "") -> subprocess.CompletedProcess[str]:
    environ: dict[str, Any] = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("MASTER_", "RANK", "LOCAL_", "WORLD_", "RECIPE_"))
    }  # fmt: skip
    environ |= cluster.env | {"OMP_NUM_THREADS": "1", "RECIPE_PREFLIGHT_SECONDS": "15", "PYTHONPATH": str(REPOSITORY)}
    command = [*STEP, sys.executable, "-c", PROGRAM, str(tmp_path), missing]
    return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=240)


def test_a_step_of_three_nodes_meets_and_computes(plain_cluster: Cluster, tmp_path: Path) -> None:
    done = srun(plain_cluster, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    port = lines[0].split()[-5]
    hosts = [line.split()[1] for line in lines]
    assert hosts == sorted(hosts)
    assert set(hosts) == {"node2", "node3", "node4"}
    for rank, (host, line) in enumerate(zip(hosts, lines, strict=True)):
        local = rank - hosts.index(host)
        assert line == f"{rank} {host} {' '.join(hosts)} 10 node2 {port} {rank} {local} 5 {hosts.count(host)}"


def test_a_node_whose_processes_never_start_is_named(plain_cluster: Cluster, tmp_path: Path) -> None:
    done = srun(plain_cluster, tmp_path, missing="node3")
    assert done.returncode == 87, done.stderr
    record = json.loads((tmp_path / "preflight.json").read_text())
    assert (record["attempt"], record["nodes"]) == (1, ["node3"])
    assert record["message"].startswith("node3 (process")
    assert f"neobert: bad start: {record['message']}\n" in done.stderr
