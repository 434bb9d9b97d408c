"""The CPU image, as `recipe image build cpu` makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.image.definitions import LOCK, locked_version, sha256_text
from tests.containers.plugin import ROOT

TRAIN = """task_name=rte data.generated=64 data.max_length=32 model.hidden_size=32 model.num_hidden_layers=1
model.num_attention_heads=2 model.intermediate_size=64 model.allow_random_weights=true trainer.max_steps=2
trainer.per_device_train_batch_size=4"""


def apptainer(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(["apptainer", *map(str, words)], capture_output=True, text=True, env=env)


def recipe(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slurm.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def labels(image: Path) -> dict[str, str]:
    answer = apptainer("inspect", "--json", "--labels", image)
    found: dict[str, str] = json.loads(answer.stdout)["data"]["attributes"]["labels"]
    return found


def test_its_labels_say_what_is_in_it(cpu_image: Path) -> None:
    found = labels(cpu_image)
    torch = locked_version(ROOT / LOCK, "torch")
    assert found["neobert.torch"].partition("+")[0] == torch
    assert found["neobert.kind"] == "cpu"
    assert found["neobert.cuda"] == "none" or found["neobert.torch"] == torch
    assert found["neobert.lock"] == sha256_text(ROOT / LOCK)
    assert found["neobert.python"].startswith("3.11.")
    assert "deepspeed" in found["neobert.extras"].split(",")
    assert found["neobert.dirty"] in ("yes", "no", "unknown")
    for name in ("version", "revision", "created", "base.name"):
        assert found[f"org.opencontainers.image.{name}"]


def test_it_runs_neobert(cpu_image: Path) -> None:
    answer = apptainer("run", cpu_image, "glue", "--help")
    assert answer.returncode == 0, answer.stderr
    assert "usage: neobert glue" in answer.stdout
    assert apptainer("run", cpu_image, "no-such-command").returncode == 2


def test_a_training_in_it_writes_its_result(cpu_image: Path, tmp_path: Path) -> None:
    done = apptainer(
        "exec", "--bind", tmp_path, cpu_image, "neobert", "glue", *TRAIN.split(), "--output-dir", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["task"] == "glue"


def test_its_environment_keeps_the_users_packages_out_and_the_users_settings(cpu_image: Path, tmp_path: Path) -> None:
    code = "import os, site, sys; print(site.ENABLE_USER_SITE, sys.prefix, os.environ['OMP_NUM_THREADS'])"
    answer = apptainer("exec", cpu_image, "python3", "-c", code, OMP_NUM_THREADS="3", PYTHONNOUSERSITE="")
    assert answer.stdout.split() == ["False", "/opt/neobert", "3"], answer.stderr


def test_nothing_in_it_is_compiled_when_it_starts(cpu_image: Path) -> None:
    code = """if True:
        import importlib.util, os
        for name in ("torch", "transformers", "deepspeed", "neobert"):
            cached = importlib.util.find_spec(name).cached
            print(name, os.path.exists(cached), int.from_bytes(open(cached, "rb").read()[4:8], "little"))
    """
    answer = apptainer("exec", cpu_image, "python3", "-P", "-c", code)
    assert answer.returncode == 0, answer.stderr
    unchecked = 1  # the flags of PEP 552: found by a hash that is not compared, so no date can make it stale
    expected = [f"{name} True {unchecked}" for name in ("torch", "transformers", "deepspeed", "neobert")]
    assert answer.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("python", "torch", "wheels", "message"),
    [
        ("3.12", "99.0.0", True, "the base image has Python 3.11, and the wheels are for 3.12"),
        ("3.11", "99.0.0", True, "and the lock (constraints.txt) needs 99.0.0: choose another base (--base)"),
        ("3.11", locked_version(ROOT / LOCK, "torch"), True, "the base image is one of this project's own"),
        ("3.11", "99.0.0", False, "no wheels are bound at /mnt: build with `recipe image build gpu`"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_at_once(
    cpu_image: Path, tmp_path: Path, python: str, torch: str, wheels: bool, message: str
) -> None:
    """What comes first in the build of the GPU image, with the CPU image in the place of its base."""
    for name in ("pip-1.whl", "neobert_slurm-1.whl"):
        (tmp_path / name).touch()
    (tmp_path / "constraints.txt").write_text(f"torch=={torch}\n")
    (tmp_path / "install.sh").write_bytes((ROOT / "containers" / "install.sh").read_bytes())
    binds = [f"{tmp_path}:/opt/neobert-image", *([f"{tmp_path}:/mnt", f"{tmp_path}:/media"] if wheels else [])]
    flags = [word for bind in binds for word in ("--bind", bind)]
    environment = tmp_path / "environment.sh"
    environment.write_bytes((ROOT / "containers" / "environment.sh").read_bytes())
    answer = apptainer("exec", *flags, cpu_image, "sh", "/opt/neobert-image/install.sh", "gpu", python, "train")
    assert answer.returncode == 1
    assert message in answer.stderr


def test_it_fits_this_checkout(cpu_image: Path) -> None:
    answer = recipe("image", "check", cpu_image)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.splitlines()[0] == f"{cpu_image} fits"


def test_it_does_not_fit_a_recipe_for_gpus(cpu_image: Path, tmp_path: Path) -> None:
    file = tmp_path / "gpus.yaml"
    config = "{task_name: rte, model: {name_or_path: m}, data: {dir: .}}"
    file.write_text(f"name: gpus\ntask: glue\nresources: {{gpus_per_node: 1}}\nconfig: {config}\n")
    answer = recipe("image", "check", cpu_image, file)
    assert answer.returncode == 1
    assert "GPUs: the image has PyTorch for CPUs, needed is PyTorch for CUDA" in answer.stdout
