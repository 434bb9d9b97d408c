"""What a trial that is done can do without, and that nothing else goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neobert.config import GlueConfig, PretrainConfig, validate
from neobert.config.keep import FINISHED, MARKER, Keep, NotWhole, remove, size_of, surplus

MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "training_args.bin")
STATE = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth", "used_rows.npy", "scaler.pt",
         "global_step7/zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest", "zero_to_fp32.py")  # fmt: skip


def save(trial: Path, step: int) -> Path:
    """A checkpoint with all that Hugging Face, DeepSpeed and this project put into one."""
    path = trial / "checkpoints" / f"checkpoint-{step}"
    (path / "global_step7").mkdir(parents=True)
    for name in (*MODEL, *STATE):
        (path / name).write_text(f"{name} of step {step}")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": 20}))
    files = {name: (path / name).stat().st_size for name in (*MODEL, *STATE, "trainer_state.json")}
    (path / MARKER).write_text(json.dumps({"schema": 1, "files": files}))
    return path


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """A fine-tuning of 60 steps whose best ones are the first 20."""
    for step in (20, 40, 60):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "data.json").write_text("{}")
    (tmp_path / "result.json").write_text(json.dumps({"task": "glue", "score": 0.5, "step": 20, "steps": 60}))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)


def trim(trial: Path, task: str = "glue", keep: Keep | None = None) -> None:
    remove(surplus(trial, task, keep), write)


def names(trial: Path) -> set[str]:
    directory = trial / "checkpoints"
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def of(step: int, *files: str) -> set[str]:
    return {f"checkpoint-{step}/{name}" for name in (*files, "trainer_state.json", MARKER)}


def test_of_a_fine_tuning_the_best_model_alone_stays(trial: Path) -> None:
    trim(trial)
    assert names(trial) == of(20, *MODEL) | {"data.json", FINISHED}
    assert not (trial / "checkpoints/checkpoint-20/global_step7").exists()
    ended = json.loads((trial / "checkpoints" / FINISHED).read_text())
    assert (ended["step"], ended["model"], ended["processes"], ended["state"]["global_step"]) == (60, 20, 2, 60)


def test_the_marker_of_the_best_model_lists_what_is_left(trial: Path) -> None:
    marker = trial / "checkpoints/checkpoint-20" / MARKER
    before = json.loads(marker.read_text())
    marker.write_text(json.dumps(before | {"digests": dict.fromkeys(before["files"], "abc")}))
    trim(trial)
    left = {*MODEL, "trainer_state.json"}
    found = json.loads(marker.read_text())
    assert found == {"schema": 1, "files": {n: before["files"][n] for n in before["files"] if n in left},
                     "digests": dict.fromkeys(found["files"], "abc")}  # fmt: skip


def test_with_the_last_its_state_stays_too(trial: Path) -> None:
    trim(trial, keep="last")
    assert names(trial) == of(20, *MODEL) | of(60, *MODEL, *STATE) | {"data.json"}


def test_with_all_nothing_goes(trial: Path) -> None:
    before = names(trial)
    trim(trial, keep="all")
    assert names(trial) == before


def test_of_a_pretraining_the_last_state_stays_and_no_older_one(trial: Path) -> None:
    trim(trial, "pretrain")
    assert names(trial) == of(60, *MODEL, *STATE) | {"data.json"}


def test_a_pretraining_can_keep_its_model_alone(trial: Path) -> None:
    with pytest.raises(NotWhole, match="model has no weights"):
        surplus(trial, "pretrain", "best")
    (trial / "model").mkdir()
    (trial / "model" / "model.safetensors").write_text("weights")
    trim(trial, "pretrain", "best")
    assert names(trial) == {"data.json", FINISHED}
    assert (trial / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("lost", [MARKER, "model.safetensors", "config.json"])
def test_nothing_goes_where_the_best_model_is_not_whole(trial: Path, lost: str) -> None:
    (trial / "checkpoints/checkpoint-20" / lost).unlink()
    before = names(trial)
    with pytest.raises(NotWhole, match="checkpoint-20 is missing or incomplete"):
        trim(trial)
    assert names(trial) == before


def test_nothing_goes_where_the_end_of_the_training_cannot_be_noted(trial: Path) -> None:
    state = trial / "checkpoints/checkpoint-60/trainer_state.json"
    state.write_text("{" * state.stat().st_size)
    with pytest.raises(NotWhole, match=r"trainer_state\.json is damaged"):
        trim(trial)


def test_a_model_in_shards_alone_is_no_model(trial: Path) -> None:
    best = trial / "checkpoints/checkpoint-20"
    (best / "model.safetensors").unlink()
    marker = json.loads((best / MARKER).read_text())
    del marker["files"]["model.safetensors"]
    (best / MARKER).write_text(json.dumps(marker))
    with pytest.raises(NotWhole):
        trim(trial)


def test_done_again_it_finds_nothing_left_to_do(trial: Path) -> None:
    trim(trial)
    again = surplus(trial, "glue", None)
    assert (again.texts, again.states, again.checkpoints) == ({}, (), ())


def stop_after(steps: int, trial: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Trims, killed at the given change to a file; returns whether it came to its end."""
    left = [steps]

    class Killed(Exception):
        pass

    def counted(change: Any) -> Any:
        def counting(*args: Any, **options: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return change(*args, **options)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr("os.unlink", counted(__import__("os").unlink))
        patch.setattr("os.rmdir", counted(__import__("os").rmdir))
        try:
            remove(surplus(trial, "glue", None), counted(write))
        except Killed:
            return False
    return True


def test_killed_at_any_moment_it_leaves_the_best_model_and_the_same_again_completes_it(
    trial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed at its first change, begun again and killed at the second, and so on."""
    for steps in range(200):
        over = stop_after(steps % 7, trial, monkeypatch)
        best = trial / "checkpoints/checkpoint-20"
        sizes = json.loads((best / MARKER).read_text())["files"]
        assert {name: (best / name).stat().st_size for name in sizes} == sizes
        assert set(MODEL) <= set(sizes)
        if over:
            break
    assert names(trial) == of(20, *MODEL) | {"data.json", FINISHED}
    assert json.loads((trial / "checkpoints" / FINISHED).read_text())["step"] == 60


def test_what_others_have_put_there_stays(trial: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").write_text("much work")
    directory = trial / "checkpoints"
    (directory / "checkpoint-7").symlink_to(elsewhere)
    (directory / "checkpoint-40" / "linked").symlink_to(elsewhere)
    (directory / "checkpoint-20" / "notes.txt").write_text("the best so far")
    (directory / "checkpoint-final").mkdir()
    trim(trial)
    assert (elsewhere / "precious").read_text() == "much work"
    assert (directory / "checkpoint-20" / "notes.txt").exists()
    assert (directory / "checkpoint-7").is_symlink()
    assert (directory / "checkpoint-final").is_dir()
    assert not (directory / "checkpoint-40").exists()


def test_a_best_model_that_is_a_link_is_left_alone(trial: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    best = trial / "checkpoints/checkpoint-20"
    there = best.rename(tmp_path_factory.mktemp("elsewhere") / "best")
    best.symlink_to(there)
    with pytest.raises(NotWhole, match="is a link"):
        trim(trial)


def test_the_size_of_a_link_is_not_that_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "large").write_bytes(bytes(10_000))
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "large")
    (tmp_path / "inside" / "file").write_bytes(bytes(10))
    assert 10 < size_of(tmp_path / "inside") < 1000


GLUE = {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 10}}
PRETRAIN = {"dataset": {"path": "shards"}, "trainer": {"max_steps": 9}}


@pytest.mark.parametrize(("model", "data"), [(GlueConfig, GLUE), (PretrainConfig, PRETRAIN)])
def test_settings_without_it_are_written_as_before_there_was_such_a_setting(model: Any, data: dict[str, Any]) -> None:
    without = validate(model, data)
    assert "keep" not in without.model_dump_json()
    explicit = validate(model, {**data, "trainer": {**data.get("trainer", {}), "keep": "last"}})
    assert explicit.model_dump(mode="json")["trainer"].pop("keep") == "last"
    assert explicit.model_dump_json(exclude={"trainer": {"keep"}}) == without.model_dump_json()
