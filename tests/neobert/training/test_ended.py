"""How a training ended is known after its last checkpoint was removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neobert.errors import RunError
from neobert.training.checkpoints import Checkpoint
from neobert.training.distributed import Ranks
from neobert.training.ended import find_ending, read_ending
from neobert.training.files import TrialFiles

END: dict[str, Any] = {"schema": 1, "step": 60, "processes": 2, "model": 20, "state": {"global_step": 60}}


@pytest.fixture
def trial(tmp_path: Path) -> TrialFiles:
    """A training that ended after 60 steps, and the model of step 20."""
    model = tmp_path / "checkpoints" / "checkpoint-20"
    model.mkdir(parents=True)
    (model / "trainer_state.json").write_text('{"global_step": 20}')
    (model / "complete.json").write_text('{"schema": 1, "files": {"trainer_state.json": 19}}')
    (tmp_path / "checkpoints" / "finished.json").write_text(json.dumps(END))
    return TrialFiles(tmp_path)


def test_it_is_the_end_with_the_model_that_stayed(trial: TrialFiles) -> None:
    ended = find_ending(trial, Ranks())
    assert ended == Checkpoint(trial.checkpoints / "checkpoint-20", 60, {"global_step": 60}, written_by=2)
    assert ended.processes == 2
    assert ended.is_model_alone


def test_a_training_that_kept_its_last_checkpoint_has_none(trial: TrialFiles) -> None:
    (trial.checkpoints / "finished.json").unlink()
    assert find_ending(trial, Ranks()) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"step": 3}'])
def test_a_damaged_note_of_it_is_told(trial: TrialFiles, text: str) -> None:
    (trial.checkpoints / "finished.json").write_text(text)
    with pytest.raises(RunError, match=r"finished\.json is damaged .* remove .*checkpoints to begin anew"):
        read_ending(trial.checkpoints)


def test_a_lost_model_is_told_and_nothing_begun_anew(trial: TrialFiles) -> None:
    (trial.checkpoints / "checkpoint-20" / "trainer_state.json").unlink()
    with pytest.raises(RunError, match=r"ended at step 60, .*checkpoint-20: trainer_state\.json is missing"):
        find_ending(trial, Ranks())
