"""A step that has no loss is not counted as one without a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from neobert.training.measured import MeasuredSteps
from tests.neobert.training.pretraining import Neobert, logged, settings_file, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("data")
    return write_shards(lambda *words: run(list(map(str, words))), directory, validation_fraction=0.0)


class Alone:
    """The part of accelerate's accelerator that a single process needs."""

    @staticmethod
    def reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
        return values


def test_a_loss_that_is_not_a_number_is_left_out_with_its_part_of_the_step() -> None:
    steps = MeasuredSteps(torch.device("cpu"), micro_batches=2)
    for loss in (1.0, 2.0, float("nan"), 3.0):
        steps.begin(masked=5, tokens=9, batches=1, bare=0)
        steps.add(torch.tensor(loss))
    assert steps.of_measured({"loss": (1 + 2 + 3) / 2}, 2, Alone()) == {"loss": 6 / 1.5}
    assert steps.of_measured({"loss": 3.0, "lr": 1.0}, 2, Alone()) == {"loss": 3.0, "lr": 1.0}


def lines(trial: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]


def settings(directory: Path, shards: Path, probability: float, **trainer: Any) -> Path:
    directory.mkdir(exist_ok=True)
    trainer = {"max_steps": 20, "save_steps": 20, "per_device_train_batch_size": 1, **trainer}
    collator = {"mlm_probability": probability}
    return settings_file(directory, shards, trainer=trainer, datacollator=collator)


def test_steps_without_a_masked_token_are_left_out_of_the_loss_and_told_once(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings(tmp_path / "one", shards, 0.02, logging_steps=1)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "one") == 0
    output = capfd.readouterr()
    losses = {line["step"]: line.get("loss") for line in lines(tmp_path / "one")}
    measured = [loss for loss in losses.values() if loss is not None]
    assert 4 < len(measured) < 16 < len(losses) == 20
    assert min(measured) > 1
    assert output.err.count("have no masked token, and nothing is learned from them") == 1
    assert output.err.count("with datacollator.mlm_probability: 0.02") == 1
    assert "no loss, " in output.out

    file = settings(tmp_path / "five", shards, 0.02, logging_steps=5)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "five") == 0
    for start, loss in zip((1, 6, 11, 16), logged(tmp_path / "five", "loss"), strict=True):
        some = [losses[step] for step in range(start, start + 5) if losses[step] is not None]
        assert loss == pytest.approx(sum(some) / len(some), rel=1e-5)


def test_a_training_in_which_nothing_was_masked_has_no_result(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings(tmp_path, shards, 1e-9, max_steps=2)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 1
    assert "no loss was measured: in all of the training no token was masked" in capfd.readouterr().err
    assert not (tmp_path / "trial" / "result.json").exists()


def test_held_out_text_without_a_masked_token_is_refused(
    neobert: Neobert, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards = write_shards(neobert, tmp_path)
    file = settings(tmp_path, shards, 1e-9)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 2
    assert "of the held-out text is masked (datacollator.mlm_probability is 1e-09)" in capfd.readouterr().err
