"""A training that is done keeps what its settings say, and what stays is good for all that it is used for."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.neobert.conftest import TINY
from tests.neobert.damage import zero_page
from tests.neobert.training.pretraining import settings_file, write_shards

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]

# The threshold is one that no later evaluation exceeds: the first of them is the best, and the third the last.
SETTINGS = [*TINY, "task_name=qnli", "data.generated=64", "optimizer.weight_decay=0", "trainer.eval_strategy=steps",
            "trainer.eval_steps=4", "trainer.num_train_epochs=3", "trainer.save_total_limit=9",
            "trainer.early_stopping_patience=2", "trainer.early_stopping_threshold=2.0"]  # fmt: skip
STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "used_rows.npy"}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def steps(trial: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in (trial / "checkpoints").glob("checkpoint-*")}


def names(trial: Path, step: int) -> set[str]:
    return {path.name for path in (trial / "checkpoints" / f"checkpoint-{step}").iterdir()}


def weights(trial: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(trial / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fine-tuning with each setting: `default`, `last` and `all`."""
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    for name in ("default", "last", "all"):
        more = [] if name == "default" else [f"trainer.keep={name}"]
        assert run(["glue", *SETTINGS, *more, "--output-dir", str(directory / name)]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return directory


@pytest.fixture
def default(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "default", tmp_path / "default"))


def best(trial: Path) -> int:
    return int(read(trial / "result.json")["step"])


def test_a_fine_tuning_leaves_its_best_model_without_the_state_of_the_training(trained: Path) -> None:
    everything, default = trained / "all", trained / "default"
    last = read(everything / "result.json")["steps"]
    assert best(everything) < last < 24, "it has stopped early, some time after the best evaluation"
    assert steps(everything) == {4, 8, 12}
    assert names(everything, best(everything)) >= STATE
    assert steps(default) == {best(everything)}
    assert names(default, best(default)) == names(everything, best(default)) - STATE
    expected, found = weights(everything, best(default)), weights(default, best(default))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_what_is_kept_changes_nothing_of_the_result(trained: Path) -> None:
    results = [read(trained / name / "result.json") for name in ("default", "last", "all")]
    for key in ("score", "step", "steps", "metric", "baseline"):
        assert len({result[key] for result in results}) == 1, key


def test_the_last_stays_as_it_was_beside_the_best_model(trained: Path) -> None:
    trial = trained / "last"
    last = read(trial / "result.json")["steps"]
    assert steps(trial) == {best(trial), last}
    assert not names(trial, best(trial)) & STATE
    assert names(trial, last) == names(trained / "all", last)


@pytest.mark.parametrize("keep", [[], ["trainer.keep=last"], ["trainer.keep=all"]])
def test_started_again_a_trial_that_is_done_does_nothing_whatever_it_is_to_keep(
    neobert: Run, default: Path, keep: list[str], capsys: Capture
) -> None:
    before = sorted(default.rglob("*"))
    assert neobert("glue", *SETTINGS, *keep, "--output-dir", default) == 0
    assert capsys.readouterr().out == f"already done: {default / 'result.json'}\n"
    assert sorted(default.rglob("*")) == before


@pytest.mark.parametrize("kept", ["default", "last"])
def test_a_result_that_was_lost_is_made_anew_without_training(
    neobert: Run, trained: Path, tmp_path: Path, kept: str, capsys: Capture
) -> None:
    trial = Path(shutil.copytree(trained / kept, tmp_path / "trial"))
    before, metrics = read(trial / "result.json"), (trial / "metrics.jsonl").read_text()
    (trial / "result.json").unlink()
    keep = [] if kept == "default" else [f"trainer.keep={kept}"]
    assert neobert("glue", *SETTINGS, *keep, "--output-dir", trial) == 0
    assert "\nstep " not in capsys.readouterr().out
    after = read(trial / "result.json")
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    assert after["seconds"] >= before["seconds"] * 0.99
    assert (trial / "metrics.jsonl").read_text() == metrics
    assert steps(trial) == steps(trained / kept)


def test_a_training_whose_best_model_was_lost_too_is_not_begun_anew_unasked(
    neobert: Run, default: Path, capsys: Capture
) -> None:
    (default / "checkpoints" / f"checkpoint-{best(default)}" / "model.safetensors").write_bytes(b"weig")
    (default / "result.json").unlink()
    assert neobert("glue", *SETTINGS, "--output-dir", default) == 1
    error = capsys.readouterr().err
    assert "this training ended at step 12" in error
    assert f"Put result.json back, or remove {default / 'checkpoints'} to begin anew" in error
    shutil.rmtree(default / "checkpoints")
    assert neobert("glue", *SETTINGS, "--output-dir", default) == 0


def test_nothing_is_removed_where_the_best_model_is_damaged(
    neobert: Run, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    trial = Path(shutil.copytree(trained / "all", tmp_path / "trial"))
    (trial / "result.json").unlink()
    zero_page(trial / "checkpoints" / f"checkpoint-{best(trained / 'all')}" / "model.safetensors")
    before = steps(trial)
    assert neobert("glue", *SETTINGS, "--output-dir", trial) == 0
    assert steps(trial) == before
    name = f"checkpoint-{best(trial)}"
    warning = f"all checkpoints stay, because {name} is the one to keep, and is damaged: model.safetensors is damaged"
    assert warning in capsys.readouterr().err


def test_a_best_model_alone_is_not_trained_on_as_if_it_were_a_checkpoint(
    neobert: Run, default: Path, capsys: Capture
) -> None:
    """As where somebody has copied the directory of the checkpoint alone."""
    (default / "checkpoints" / "finished.json").unlink()
    (default / "result.json").unlink()
    assert neobert("glue", *SETTINGS, "--output-dir", default) == 1
    assert "holds a model without training state, so no training can go on from it" in capsys.readouterr().err


def test_another_trial_begins_from_the_best_model(neobert: Run, trained: Path, tmp_path: Path) -> None:
    look = ["task_name=qnli", "data.generated=64", "data.max_length=32", "data.max_eval_samples=40", "do_train=false",
            "trainer.use_cpu=true"]  # fmt: skip
    for key in ("model.name_or_path", "model.pretrained_checkpoint_dir"):
        assert neobert("glue", *look, f"{key}={trained / 'default'}", "--output-dir", tmp_path / key) == 0
        assert read(tmp_path / key / "result.json")["score"] == read(trained / "default" / "result.json")["score"]


def test_the_best_model_is_not_taken_for_the_latest(
    neobert: Run, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    latest = [*TINY[6:], "task_name=qnli", "data.generated=64", "trainer.max_steps=1",
              "model.pretrained_checkpoint=latest"]  # fmt: skip
    named = f"model.pretrained_checkpoint_dir={trained}"
    assert neobert("glue", *latest, f"{named}/default", "--output-dir", tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "default no longer holds its last checkpoint, of step 12" in error
    assert "or train with trainer.keep: last" in error
    assert neobert("glue", *latest, f"{named}/last", "--output-dir", tmp_path / "b") == 0
    assert f"{trained}/last/checkpoints/checkpoint-12" in capsys.readouterr().out


def test_without_evaluations_the_last_weights_stay(neobert: Run, tmp_path: Path) -> None:
    """Three steps, and a checkpoint due after every second."""
    settings = [*TINY, "task_name=qnli", "data.generated=64", "do_eval=false", "trainer.eval_strategy=steps",
                "trainer.eval_steps=2", "trainer.max_steps=3"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    assert steps(tmp_path) == {3}
    assert not names(tmp_path, 3) & STATE
    result = read(tmp_path / "result.json")
    (tmp_path / "result.json").unlink()
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    assert read(tmp_path / "result.json")["score"] == result["score"]


def test_where_nothing_may_be_removed_the_trial_is_done_all_the_same(
    neobert: Run, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr("neobert.config.keep.discard", refuse)
    settings = [*TINY, "task_name=qnli", "data.generated=16", "trainer.num_train_epochs=1"]
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    assert (tmp_path / "result.json").exists()
    assert "checkpoints that are no longer needed stay: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    return write_shards(lambda *words: run(list(map(str, words))), tmp_path_factory.mktemp("data"))


LENGTH = {"max_steps": 6, "save_steps": 2, "keep": None}


def test_a_pretraining_keeps_its_last_state_from_which_another_goes_on(
    neobert: Run, shards: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = tmp_path / "first"
    assert neobert("pretrain", "--config", settings_file(tmp_path, shards, trainer=LENGTH), "--output-dir", first) == 0
    assert steps(first) == {6}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "place.json"} <= names(first, 6)
    more = {**LENGTH, "max_steps": 8, "resume_from_checkpoint": str(first)}
    file = settings_file(tmp_path, shards, trainer=more)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "more") == 0
    assert f"begun from step 6 ({first}/checkpoints/checkpoint-6)" in capsys.readouterr().out


def test_a_pretraining_that_keeps_its_model_alone_is_used_and_not_gone_on_from(
    neobert: Run, shards: Path, tmp_path: Path, capsys: Capture
) -> None:
    trial = tmp_path / "trial"
    alone = settings_file(tmp_path, shards, trainer={**LENGTH, "keep": "best"})
    assert neobert("pretrain", "--config", alone, "--output-dir", trial) == 0
    assert steps(trial) == set()
    assert neobert("export", f"source={trial}", "--output-dir", tmp_path / "export") == 0
    glue = [*TINY[6:], "task_name=qnli", "data.generated=16", "trainer.max_steps=1", f"model.name_or_path={trial}"]
    assert neobert("glue", *glue, "--output-dir", tmp_path / "glue") == 0
    (trial / "result.json").unlink()
    capsys.readouterr()
    assert neobert("pretrain", "--config", alone, "--output-dir", trial) == 1
    assert "this training ended at step 6" in capsys.readouterr().err
    more = {**LENGTH, "max_steps": 8, "resume_from_checkpoint": str(trial)}
    file = settings_file(tmp_path, shards, trainer=more)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "more") == 2
    error = capsys.readouterr().err
    assert f"{trial} holds no checkpoint: trainer.keep: best has kept the model alone" in error
