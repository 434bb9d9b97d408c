"""A checkpoint counts once it is complete, and the ones that matter are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xxhash

from neobert.errors import RunError
from neobert.training import checkpoints
from neobert.training.checksums import is_share
from tests.neobert.damage import Damage, flip_bit, forget_checksums, zero_end, zero_page

FILES = {"model.safetensors": "weights", "trainer_state.json": '{"global_step": 0}', "global_step0/shard.pt": "shard"}


def save(directory: Path, step: int) -> Path:
    written = checkpoints.staging(directory) / f"checkpoint-{step}"
    for name, text in FILES.items():
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_text(text.replace("0", str(step)) if name.endswith("json") else text)
    return checkpoints.complete(written, directory)


def steps(directory: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in directory.glob("checkpoint-*")}


def test_a_completed_checkpoint_is_in_place_with_its_inventory(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    assert path == tmp_path / "checkpoint-7"
    marker = json.loads((path / "complete.json").read_text())
    assert marker["files"] == {name: len((path / name).read_text()) for name in FILES}
    assert marker["xxh3_128"] == {name: xxhash.xxh3_128_hexdigest((path / name).read_bytes()) for name in FILES}
    assert not checkpoints.staging(tmp_path).exists()
    found = checkpoints.newest_complete(tmp_path)
    assert found == checkpoints.Checkpoint(path, 7, {"global_step": 7})


def test_the_newest_is_that_of_the_highest_step_not_the_last_in_the_alphabet(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        save(tmp_path, step)
    found = checkpoints.newest_complete(tmp_path)
    assert found is not None
    assert found.step == 100


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "complete.json").unlink(), "it has no complete.json, so it was not written to its end"),
        (lambda path: (path / "complete.json").write_text("{"), "its complete.json cannot be read"),
        (lambda path: (path / "complete.json").write_text('{"files": []}'), "its complete.json cannot be read"),
        (lambda path: edit_marker(path, lambda _: 3), "its complete.json cannot be read"),
        (lambda path: edit_marker(path, lambda _: {}), "its complete.json is damaged: it has no checksum of glo"),
        (lambda path: (path / "model.safetensors").write_bytes(bytes(7)), "model.safetensors holds zeros instead of"),
        (lambda path: flip_bit(path / "trainer_state.json"), "trainer_state.json is damaged: its checksum is "),
        (lambda path: flip_bit(path / "model.safetensors"), "model.safetensors is damaged: its checksum is "),
        (lambda path: zero_page(path / "global_step0/shard.pt"), "global_step0/shard.pt is damaged: its checksum is "),
        (lambda path: (path / "trainer_state.json").write_text("[" * 19), "its trainer_state.json cannot be read"),
        (lambda path: (path / "model.safetensors").write_text("weig"), "model.safetensors has 4 bytes instead of 7"),
        (lambda path: (path / "global_step0/shard.pt").unlink(), "global_step0/shard.pt is missing"),
    ],
)
def test_an_incomplete_one_is_skipped_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    save(tmp_path, 10)
    damage(save(tmp_path, 20))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest_complete(tmp_path)
    assert found is not None
    assert found.step == 10
    assert f"skipping the checkpoint {tmp_path / 'checkpoint-20'}: {reason}" in caplog.text


@pytest.mark.parametrize("damage", [zero_page, zero_end, flip_bit])
@pytest.mark.parametrize("step", [10, 20])
def test_files_that_torch_wrote_are_verified_without_a_checksum_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Damage, step: int
) -> None:
    """A checkpoint of an older version has no checksums, but such a file is a zip, which has some of its own."""
    for number in (10, 20):
        path = save(tmp_path, number)
        torch.save({"moments": torch.randn(50, 100)}, path / "optimizer.pt")
        checkpoints.mark(path)
        forget_checksums(path)
    with caplog.at_level(logging.INFO):
        assert checkpoints.newest_complete(tmp_path) == checkpoints.Checkpoint(path, 20, {"global_step": 20})
        assert caplog.text.count("was written without checksums, by an older version") == 1
        damage(tmp_path / f"checkpoint-{step}" / "optimizer.pt")
        found = checkpoints.newest_complete(tmp_path)
    assert found is not None
    assert found.step == (10 if step == 20 else 20)
    assert ("checkpoint-20: optimizer.pt is damaged" in caplog.text) == (step == 20)


def test_the_weights_alone_are_verified_for_whom_they_are_enough(tmp_path: Path) -> None:
    path = save(tmp_path, 10)
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"):
        (path / name).write_text("of the training")
    checkpoints.mark(path)
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin", "global_step0/shard.pt"):
        flip_bit(path / name)
    assert checkpoints.find_fault(path, checkpoints.weights) is None
    assert checkpoints.find_fault(path) is not None
    flip_bit(path / "model.safetensors")
    assert "model.safetensors" in str(checkpoints.find_fault(path, checkpoints.weights))


def test_what_other_processes_have_sealed_is_not_read_again(tmp_path: Path) -> None:
    written = checkpoints.staging(tmp_path) / "checkpoint-3"
    written.mkdir(parents=True)
    for name in ("trainer_state.json", "rng_state_1.pth"):
        (written / name).write_text('{"global_step": 3}')
    path = checkpoints.complete(written, tmp_path, sealed={"rng_state_1.pth": "as the other process says"})
    assert (
        json.loads((path / "complete.json").read_text())["xxh3_128"]["rng_state_1.pth"] == "as the other process says"
    )


def test_every_file_is_of_one_process_and_a_shard_of_the_one_that_wrote_it() -> None:
    names = ["model.safetensors", "rng_state_2.pth", "global_step9/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt",
             "global_step9/zero_pp_rank_7_mp_rank_00_model_states.pt"]  # fmt: skip
    shares = [[name for name in names if is_share(name, process, 4)] for process in range(4)]
    assert shares == [names[:1], [], names[1:3], names[3:]]


def test_a_finished_model_has_a_marker_too(tmp_path: Path) -> None:
    written = checkpoints.staging(tmp_path) / "model"
    written.mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json"):
        (written / name).write_text("weights")
    checkpoints.put_model_in_place(written, tmp_path / "model")
    assert checkpoints.find_fault(tmp_path / "model") is None
    assert checkpoints.find_no_state(tmp_path / "model") == (
        "it has no trainer_state.json, so no training can go on from it"
    )
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert checkpoints.find_fault(tmp_path / "model") is None, "people edit the small files of a model"
    flip_bit(tmp_path / "model" / "model.safetensors")
    assert checkpoints.find_fault(tmp_path / "model") is not None


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoints.newest_complete(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-3").touch()
    assert checkpoints.newest_complete(tmp_path) is None


def test_saving_again_at_a_step_replaces_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "stale.pt").touch()
    assert not (save(tmp_path, 5) / "stale.pt").exists()
    assert checkpoints.find_fault(tmp_path / "checkpoint-5") is None


@pytest.mark.parametrize(
    ("limit", "newest", "best", "kept"),
    [(2, 5, None, {4, 5}), (2, 5, 1, {1, 5}), (1, 5, 1, {1, 5}), (1, 5, 5, {5}), (3, 5, 2, {2, 4, 5}),
     (9, 5, 2, {1, 2, 3, 4, 5})],
)  # fmt: skip
def test_the_oldest_go_but_never_the_newest_and_the_best(
    tmp_path: Path, limit: int, newest: int, best: int | None, kept: set[int]
) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    checkpoints.keep_newest(tmp_path, limit, newest, best)
    assert steps(tmp_path) == kept


def test_a_broken_checkpoint_of_a_later_step_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    (tmp_path / "checkpoint-30" / "complete.json").unlink()
    checkpoints.keep_newest(tmp_path, 1, newest=20, best=None)
    found = checkpoints.newest_complete(tmp_path)
    assert found is not None
    assert found.step == 20


@pytest.mark.parametrize(("directory", "file"), [(0o2775, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_a_group_that_shares_a_run_can_read_all_files_of_its_checkpoints(
    tmp_path: Path, directory: int, file: int
) -> None:
    """safetensors writes files that nobody else may read, whatever the umask."""
    for finish, name in [(checkpoints.complete, "checkpoint-3"), (put_model_in_place, "model")]:
        written = checkpoints.staging(tmp_path) / name
        written.mkdir(parents=True)
        written.chmod(directory)
        (written / "model.safetensors").write_text("weights")
        (written / "model.safetensors").chmod(0o600)
        finish(written, tmp_path)
        assert (tmp_path / name / "model.safetensors").stat().st_mode & 0o777 == file


def put_model_in_place(written: Path, directory: Path) -> None:
    checkpoints.put_model_in_place(written, directory / written.name)


def test_files_that_others_wrote_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a file from another node may show up late."""
    written = tmp_path / "partial-0" / "checkpoint-3"
    written.mkdir(parents=True)
    (written / "trainer_state.json").write_text('{"global_step": 3}')
    late = written / "rng_state_1.pth"
    monkeypatch.setattr(checkpoints.time, "sleep", lambda seconds: late.write_text("numbers"))
    path = checkpoints.complete(written, tmp_path, ["rng_state_1.pth", "trainer_state.json"])
    assert json.loads((path / "complete.json").read_text())["files"] == {"rng_state_1.pth": 7, "trainer_state.json": 18}


def test_a_checkpoint_that_lacks_files_of_others_is_not_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "partial-0" / "checkpoint-3"
    written.mkdir(parents=True)
    (written / "trainer_state.json").write_text('{"global_step": 3}')
    monkeypatch.setattr(checkpoints, "SECONDS_TO_BE_SEEN", 0.0)
    with pytest.raises(OSError, match=r"other processes wrote shard\.pt, which cannot be seen here"):
        checkpoints.complete(written, tmp_path, ["shard.pt", "trainer_state.json"])
    assert checkpoints.newest_complete(tmp_path) is None


def test_the_checkpoint_that_the_main_process_found_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = save(tmp_path, 10) / "complete.json"
    save(tmp_path, 20)
    hidden = marker.rename(tmp_path / "hidden")
    monkeypatch.setattr(checkpoints.time, "sleep", lambda seconds: hidden.rename(marker))
    assert checkpoints.at_step(tmp_path, 10).path == marker.parent
    marker.unlink()
    monkeypatch.setattr(checkpoints, "SECONDS_TO_BE_SEEN", 0.0)
    with pytest.raises(RunError, match=r"checkpoint-10 is complete where the main process is, but not here: it has no"):
        checkpoints.at_step(tmp_path, 10)


def edit_marker(path: Path, change: Callable[[dict[str, str]], object]) -> None:
    marker = json.loads((path / "complete.json").read_text())
    marker["xxh3_128"] = change(marker["xxh3_128"])
    (path / "complete.json").write_text(json.dumps(marker))
