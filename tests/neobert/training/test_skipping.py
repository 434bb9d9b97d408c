"""A step that would do harm is skipped and counted, and too many of them end the training while it can still go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from neobert.training import pretraining
from neobert.training.preemption import Preemption
from tests.neobert.conftest import REPOSITORY
from tests.neobert.training.pretraining import Neobert, logged, same, settings_file, write_shards

Harm = Callable[[Mapping[int, float]], None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    torch.set_num_threads(1)
    return write_shards(lambda *words: run(list(map(str, words))), tmp_path_factory.mktemp("data"))


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> Harm:
    """Multiplies the loss, and so the gradient, of some steps."""
    whole = pretraining.PretrainTrainer.compute_loss

    def at(factors: Mapping[int, float]) -> None:
        def compute_loss(self: Any, *arguments: Any, **options: Any) -> Any:
            return whole(self, *arguments, **options) * factors.get(self.state.global_step + 1, 1.0)

        monkeypatch.setattr(pretraining.PretrainTrainer, "compute_loss", compute_loss)

    return at


def at_step(trial: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(trial / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def unchanged(trial: Path, step: int) -> bool:
    """Whether a step has left all weights as they were."""
    before, after = at_step(trial, step - 1), at_step(trial, step)
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_loss_that_is_no_number_costs_one_step_and_no_figures(
    neobert: Neobert, shards: Path, tmp_path: Path, harm: Harm, pieces: int
) -> None:
    harm({3: float("nan"), 5: float("inf")})
    trainer = {"max_steps": 8, "save_steps": 1, "save_total_limit": 9, "logging_steps": 2,
               "gradient_accumulation_steps": pieces}  # fmt: skip
    file = settings_file(tmp_path, shards, trainer=trainer)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert [unchanged(tmp_path / "trial", step) for step in range(2, 9)] == [step in (3, 5) for step in range(2, 9)]
    assert logged(tmp_path / "trial", "skipped_steps") == [1, 2, 2]
    assert all(0 < loss < 10 for loss in logged(tmp_path / "trial", "loss"))


def test_a_spike_is_told_by_what_is_usual_and_skipped(
    neobert: Neobert, shards: Path, tmp_path: Path, harm: Harm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "USUAL", 4)
    harm({2: 1e4, 7: 1e4})  # at step 2 nothing is usual yet
    trainer = {"max_steps": 8, "save_steps": 1, "save_total_limit": 9, "spike_factor": 50.0}
    file = settings_file(tmp_path, shards, trainer=trainer)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert [unchanged(tmp_path / "trial", step) for step in range(2, 9)] == [step == 7 for step in range(2, 9)]


def test_too_many_end_it_and_it_can_go_on_from_before(
    neobert: Neobert, shards: Path, tmp_path: Path, harm: Harm, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings_file(tmp_path, shards, trainer={"max_steps": 20, "max_skipped_steps": 2})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "undisturbed") == 0
    harm(dict.fromkeys((12, 13, 14), float("nan")))
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 1
    told = capfd.readouterr().err
    assert "step 13 has a gradient of nan and is skipped; 2 of at most 2" in told
    assert "step 14 has a gradient of nan, and at most 2 such steps are skipped: the training has" in told
    assert [path.name for path in (tmp_path / "trial/checkpoints").iterdir()] == ["checkpoint-10"]
    harm({})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert same(tmp_path / "trial", tmp_path / "undisturbed")


def test_what_another_trial_has_skipped_does_not_count(
    neobert: Neobert, shards: Path, tmp_path: Path, harm: Harm
) -> None:
    harm(dict.fromkeys((4, 12), float("nan")))
    file = settings_file(tmp_path, shards, trainer={"max_steps": 10, "max_skipped_steps": 1})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "first") == 0
    trainer = {"max_steps": 15, "max_skipped_steps": 1, "resume_from_checkpoint": str(tmp_path / "first")}
    file = settings_file(tmp_path, shards, trainer=trainer)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "then") == 0
    assert logged(tmp_path / "then", "skipped_steps") == [1]


def test_stopped_and_resumed_it_skips_the_same_steps(
    neobert: Neobert, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "USUAL", 6)
    file = settings_file(tmp_path, shards, trainer={"spike_factor": 1.1, "max_skipped_steps": 30, "logging_steps": 1})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "undisturbed") == 0
    asked = iter([False] * 14 + [True] * 2)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "agreed", lambda self: next(asked))
        assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 85
    before = json.loads((tmp_path / "trial/checkpoints/checkpoint-14/place.json").read_text())["skipped_steps"]
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    skipped = logged(tmp_path / "undisturbed", "skipped_steps")
    assert 0 < before < skipped[-1]
    assert logged(tmp_path / "trial", "skipped_steps") == skipped
    assert same(tmp_path / "trial", tmp_path / "undisturbed")


# The gradient of the root of 0 is no number, and the loss is none the less one.
DRIVER = """
import json, sys, torch
from neobert.cli import run
from neobert.training.pretraining import PretrainTrainer

whole = PretrainTrainer.compute_loss

def compute_loss(self, model, *arguments, **options):
    loss = whole(self, model, *arguments, **options)
    if self.state.global_step + 1 != 3:
        return loss
    return loss * float("nan") if harm == "loss" else loss + torch.sqrt(loss * 0)

PretrainTrainer.compute_loss = compute_loss
for harm, words in json.loads(sys.argv[1]):
    print(run(words), file=sys.stderr)
"""


@pytest.mark.usefixtures("deepspeed")
def test_with_deepspeed_which_has_taken_it_the_training_ends_at_once(shards: Path, tmp_path: Path) -> None:
    work = []
    for harm, stage in (("loss", 0), ("gradient", 1), ("loss", 3)):
        directory = tmp_path / f"{stage}"
        directory.mkdir()
        trainer = {"save_steps": 2, "logging_steps": 10}
        file = settings_file(directory, shards, trainer=trainer, deepspeed={"zero_stage": stage})
        work.append((harm, ["pretrain", "--config", str(file), "--output-dir", str(directory)]))
    command = [sys.executable, "-c", DRIVER, json.dumps(work)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environ)
    message = "neobert: step 3 has a loss or a gradient that is no number, and with DeepSpeed none is skipped: "
    assert done.stderr.count(message) == 3, done.stderr
    for _, words in work:
        assert [path.name for path in Path(words[-1]).glob("checkpoints/*")] == ["checkpoint-2"]
