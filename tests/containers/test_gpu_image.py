"""The GPU image, as far as a machine without its registry can build it: on a stand-in for its base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.image.definitions import LOCK, locked_version
from tests.containers.plugin import ROOT

REPORT = """
import importlib.metadata as m, jinja2, os, sys, torch
print(torch.__file__)
print(jinja2.__file__)
print(m.version("jinja2"), os.environ["BASE_SAYS"], sys.prefix)
"""


@pytest.fixture(scope="module")
def stand_in(cpu_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("base") / "stand-in"
    definition = Path(__file__).with_name("stand_in.def")
    words = ["build", "--fakeroot", "--sandbox", "--build-arg", f"IMAGE={cpu_image}", str(base), str(definition)]
    built = subprocess.run(["apptainer", *words], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return base


@pytest.mark.slow_cluster
def test_it_is_built_on_a_base_that_the_site_chooses(stand_in: Path, tmp_path: Path) -> None:
    image = tmp_path / "gpu.sif"
    words = ["build", "gpu", "--base", stand_in, "--python", "3.11", "--output", image]
    command = [sys.executable, "-m", "slurm.cli", "image", *map(str, words)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr

    labels = json.loads(Path(f"{image}.json").read_text())["labels"]
    assert labels["neobert.kind"] == "gpu"
    assert labels["org.opencontainers.image.base.name"] == str(stand_in)
    assert labels["neobert.torch"].partition("+")[0] == locked_version(ROOT / LOCK, "torch")
    assert labels["neobert.extras"].split(",") == ["train", "eval", "deepspeed", "gpu"]

    answer = subprocess.run(["apptainer", "exec", image, "python3", "-P", "-c", REPORT], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    torch, jinja2, rest = answer.stdout.splitlines()
    assert torch.startswith("/usr/local/lib/python3.11/dist-packages/"), "the base's PyTorch was replaced"
    assert jinja2.startswith("/opt/neobert/"), "the base's version hides the locked one"
    assert rest.split() == [locked_version(ROOT / LOCK, "Jinja2"), "kept", "/opt/neobert"]
