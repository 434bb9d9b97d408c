"""What the launcher reckons that trials take of the disk is what they take, within 5 %."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neobert.config.keep import size_of
from neobert.training import checkpoints
from tests.neobert.conftest import TINY
from tests.neobert.training.disk import estimated
from tests.neobert.training.pretraining import settings_file, write_shards

Run = Callable[..., int]


@pytest.fixture
def peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The bytes in the trial `tmp_path / "trial"` when it had the most: right after something was put into place."""
    seen = [0]
    put = checkpoints._put_in_place

    def watched(*paths: Any) -> None:
        put(*paths)
        seen.append(size_of(tmp_path / "trial"))

    monkeypatch.setattr(checkpoints, "_put_in_place", watched)
    return lambda: max(seen)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["trainer.num_train_epochs=1"],
        ["trainer.keep=all", "trainer.save_total_limit=1", "trainer.num_train_epochs=4"],
        ["do_eval=false", "trainer.keep=last", "trainer.save_total_limit=1"],
        ["trainer.eval_strategy=steps", "trainer.eval_steps=1", "trainer.max_steps=5", "trainer.save_total_limit=3"],
    ],
)
def test_a_fine_tuning_takes_what_was_reckoned(
    neobert: Run, large_bert: Path, tmp_path: Path, peak: Callable[[], int], settings: list[str]
) -> None:
    common = [*TINY[6:], "task_name=rte", "data.generated=16", f"model.name_or_path={large_bert}", *settings]
    assert neobert("glue", *common, "--output-dir", tmp_path / "trial") == 0
    found = estimated(common)
    assert found.peak == pytest.approx(peak(), rel=0.05)
    assert found.stays == pytest.approx(size_of(tmp_path / "trial"), rel=0.05)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    return write_shards(lambda *words: run(list(map(str, words))), tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("trainer", "optimizer"),
    [
        ({}, {}),
        ({"keep": "best"}, {"name": "stable_adamw"}),
        ({"keep": "all", "save_total_limit": 3}, {"name": "muon"}),
    ],
)
def test_a_pretraining_takes_what_was_reckoned(
    neobert: Run, shards: Path, tmp_path: Path, peak: Callable[[], int], trainer: Any, optimizer: Any
) -> None:
    size = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 384}
    file = settings_file(
        tmp_path,
        shards,
        model=size,
        optimizer=optimizer,
        trainer={"max_steps": 4, "save_steps": 1, "keep": None, **trainer},
    )
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    found = estimated([], "pretrain", file)
    assert found.peak == pytest.approx(peak(), rel=0.05)
    assert found.stays == pytest.approx(size_of(tmp_path / "trial"), rel=0.05)
