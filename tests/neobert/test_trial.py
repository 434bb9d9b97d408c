"""A directory is new, belongs to a trial with the same settings, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from neobert.config import ConfigError, GlueConfig
from neobert.training.files import TrialFiles
from neobert.trial import is_done, open_trial, write_settings


def settings(**more: object) -> GlueConfig:
    data: dict[str, object] = {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 9}}
    return GlueConfig.model_validate(data | more)


CONFIG = settings()


@pytest.fixture
def under_way(tmp_path: Path) -> TrialFiles:
    paths = open_trial(tmp_path / "trial", "glue", CONFIG, writes=True)
    write_settings(paths, "glue", CONFIG)
    (paths.checkpoints / "checkpoint-1").mkdir(parents=True)
    return paths


def test_the_same_settings_may_go_on(under_way: TrialFiles) -> None:
    assert open_trial(under_way.directory, "glue", CONFIG, writes=True) == under_way


def test_what_only_shares_out_the_work_may_change(under_way: TrialFiles) -> None:
    other = settings(trainer={"dataloader_num_workers": 2})
    assert open_trial(under_way.directory, "glue", other, writes=True) == under_way
    other = settings(trainer={"logging_steps": 2})
    with pytest.raises(ConfigError, match=r"other settings: trainer.logging_steps is 10 there and 2 here. Choose"):
        open_trial(under_way.directory, "glue", other, writes=True)


def test_checkpoints_of_unknown_settings_are_not_resumed(under_way: TrialFiles) -> None:
    under_way.config.unlink()
    with pytest.raises(ConfigError, match=r"trial/config.yaml: is missing, so .* other settings. Choose another --out"):
        open_trial(under_way.directory, "glue", CONFIG, writes=True)


@pytest.mark.parametrize("text", ["", "task: glue\n", "- a\n"])
def test_damaged_settings_are_said_to_be_so(under_way: TrialFiles, text: str) -> None:
    under_way.config.write_text(text)
    with pytest.raises(
        ConfigError, match=r"trial/config.yaml: is damaged: expected the task and config of a trial. Ch"
    ):
        open_trial(under_way.directory, "glue", CONFIG, writes=True)


@pytest.mark.parametrize("text", ["", '{"score": 0.', "\x00\x00"])
def test_a_damaged_result_is_none(under_way: TrialFiles, text: str) -> None:
    assert not is_done(under_way)
    under_way.result.write_text(text)
    with pytest.raises(
        ConfigError, match=r"trial/result.json: is damaged. Remove it, and the same command makes it anew"
    ):
        is_done(under_way)
    under_way.result.write_text('{"score": 0.5}')
    assert is_done(under_way)
