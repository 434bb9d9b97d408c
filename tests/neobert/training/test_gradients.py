"""The same global batch gives the same weights, however it is split over processes and accumulated pieces.

With a BERT, because that is where Trainer goes wrong by itself: BERT "accepts loss kwargs", so its loss is scaled by
the number of processes, and not divided by the number of pieces. AdamW hides a wrong scale, for it divides by the
gradient's size; with a large epsilon it does not.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.neobert.conftest import REPOSITORY, launch
from tests.neobert.damage import flip_bit

SETTINGS = ["data.max_length=32", "data.max_eval_samples=20", "trainer.num_train_epochs=2", "trainer.logging_steps=1",
            "trainer.use_cpu=true", "trainer.gradient_clipping=null", "optimizer.eps=1.0", "optimizer.lr=1.0",
            "scheduler.name=constant", "scheduler.warmup_steps=0", "optimizer.weight_decay=0",
            "trainer.keep=all"]  # fmt: skip


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(
        max(directory.glob("checkpoints/checkpoint-*"), key=lambda p: p.stat().st_mtime) / "model.safetensors"
    )


def logged(directory: Path, key: str) -> list[float]:
    entries = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [entry[key] for entry in entries if key in entry]


def assert_same_training(one: Path, other: Path) -> None:
    assert logged(other, "grad_norm") == pytest.approx(logged(one, "grad_norm"), rel=1e-4)
    assert logged(other, "loss") == pytest.approx(logged(one, "loss"), rel=1e-4)
    assert logged(other, "eval_loss") == pytest.approx(logged(one, "eval_loss"), rel=1e-4)
    expected, found = weights(one), weights(other)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("task", "lr"), [("rte", 1.0), ("stsb", 0.03)])
def test_accumulated_pieces_count_as_one_batch(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path, task: str, lr: float
) -> None:
    """50 examples: the last batch of an epoch is a small one, and its pieces are not of one size."""
    common = [
        *SETTINGS,
        f"task_name={task}",
        f"optimizer.lr={lr}",
        "data.generated=50",
        f"model.name_or_path={tiny_bert}",
    ]
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert neobert("glue", *common, "trainer.per_device_train_batch_size=16", "--output-dir", whole) == 0
    split = ["trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=4"]
    assert neobert("glue", *common, *split, "--output-dir", pieces) == 0
    assert len(logged(whole, "loss")) == 8
    assert_same_training(whole, pieces)
    start = load_file(tiny_bert / "model.safetensors")["bert.encoder.layer.0.output.dense.weight"]
    # What is compared has moved, by fifty times the tolerance.
    assert (weights(whole)["bert.encoder.layer.0.output.dense.weight"] - start).abs().max() > 1e-4


@pytest.fixture(scope="module")
def two_processes(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The settings and directory of a training by two real processes, which also accumulate, started by torchrun."""
    settings = ["glue", *SETTINGS, "task_name=rte", "data.generated=48", f"model.name_or_path={tiny_bert}",
                "trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=2"]  # fmt: skip
    directory = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "neobert"]
    subprocess.run([*torchrun, *settings, "--output-dir", str(directory)], check=True, cwd=REPOSITORY, timeout=120)
    return settings, directory


def test_two_processes_count_as_one(
    neobert: Callable[..., int], two_processes: tuple[list[str], Path], tmp_path: Path
) -> None:
    settings, two = two_processes
    whole = ["trainer.per_device_train_batch_size=16", "trainer.gradient_accumulation_steps=1"]
    assert neobert(*settings, *whole, "--output-dir", tmp_path) == 0
    assert_same_training(tmp_path, two)
    results = [json.loads((directory / "result.json").read_text()) for directory in (tmp_path, two)]
    assert results[0]["metrics"]["accuracy"] == results[1]["metrics"]["accuracy"]
    assert len(list((two / "tensorboard").iterdir())) == 1  # one of them writes


def test_a_signal_to_one_of_two_processes_stops_both_and_a_resume_ends_the_same(
    two_processes: tuple[list[str], Path], tmp_path: Path
) -> None:
    settings, undisturbed = two_processes
    first = launch([*settings, "--output-dir", tmp_path], 2, free_port())
    while not (tmp_path / "progress.json").exists():
        assert first[0].poll() is None, first[0].stdout.read()
        time.sleep(0.01)
    first[1].send_signal(signal.SIGUSR2)  # not the one that writes; both are still starting
    assert [process.wait(120) for process in first] == [85, 85], [process.stdout.read() for process in first]
    (checkpoint,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-1"
    assert {"rng_state_0.pth", "rng_state_1.pth", "complete.json"} <= {path.name for path in checkpoint.iterdir()}

    second = launch([*settings, "--output-dir", tmp_path], 2, free_port())
    assert [process.wait(120) for process in second] == [0, 0], [process.stdout.read() for process in second]
    assert second[1].stdout.read() == ""  # one process speaks for all
    expected, found = weights(undisturbed), weights(tmp_path)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_what_one_of_two_processes_finds_damaged_both_pass_over(
    two_processes: tuple[list[str], Path], tmp_path: Path
) -> None:
    settings, undisturbed = two_processes
    trial = Path(shutil.copytree(undisturbed, tmp_path / "trial"))
    (trial / "result.json").unlink()
    newest = max((trial / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    flip_bit(newest / "rng_state_1.pth")
    both = launch([*settings, "--output-dir", trial], 2, free_port())
    told = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert f"skipping the checkpoint {newest}: rng_state_1.pth is damaged" in told[0]
    assert told[1] == ""
    expected, found = weights(undisturbed), weights(trial)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
