"""A training that is interrupted and resumed ends bit for bit like one that was left alone."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.training import checkpoints
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles
from neobert.training.resuming import check_same_data, found_once, record_data
from tests.neobert.conftest import TINY
from tests.neobert.damage import Damage, flip_bit, zero_end, zero_page

# 160 examples in batches of 8: 20 steps an epoch; a line in metrics.jsonl at steps 1, 3, 6, ... and one an evaluation.
# Without weight decay, which has the used rows of embeddings alone among the weights.
# All checkpoints stay: a copy without result.json is then like a training that was killed before it was done.
SETTINGS = [*TINY, "task_name=qnli", "data.generated=160", "trainer.num_train_epochs=3", "optimizer.weight_decay=0",
            "trainer.keep=all"]  # fmt: skip
Run = Callable[..., int]


def weights(directory: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def assert_same_end(directory: Path, undisturbed: Path, step: int = 60) -> None:
    expected, found = weights(undisturbed, step), weights(directory, step)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    results = [json.loads((path / "result.json").read_text()) for path in (directory, undisturbed)]
    for key in ("score", "step", "steps", "baseline", "metric"):
        assert results[0][key] == results[1][key], key
    assert results[0]["metrics"]["loss"] == results[1]["metrics"]["loss"]


def newest(directory: Path) -> int:
    return max(int(path.name.split("-")[1]) for path in (directory / "checkpoints").glob("checkpoint-*"))


def test_what_was_found_at_the_beginning_holds_for_all_attempts(tmp_path: Path) -> None:
    paths, splits = TrialFiles(tmp_path), generated_splits(TASKS["rte"], 40)
    paths.checkpoints.mkdir()
    record_data(paths, splits)
    assert found_once(paths, Ranks(), "padding matters", lambda: False) is False
    assert found_once(paths, Ranks(), "padding matters", lambda: True) is False
    check_same_data(paths, splits)
    record_data(paths, splits)  # a new beginning
    assert found_once(paths, Ranks(), "padding matters", lambda: True) is True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("undisturbed")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    assert run(["glue", *SETTINGS, "--output-dir", str(directory)]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return directory


def test_stopping_in_mid_epoch_again_and_again_changes_nothing(
    neobert: Run, signal_at_line: Callable[[Path, int], None], undisturbed: Path, tmp_path: Path
) -> None:
    stops = []
    for lines in (4, 12):
        signal_at_line(tmp_path / "metrics.jsonl", lines)
        assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 85
        stops.append(newest(tmp_path))
        assert not (tmp_path / "result.json").exists()
        progress = json.loads((tmp_path / "progress.json").read_text())
        assert (progress["phase"], progress["step"], progress["total_steps"]) == ("stopped", stops[-1], 60)
    assert 0 < stops[0] < stops[1] < 60
    assert any(step % 20 for step in stops)
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert_same_end(tmp_path, undisturbed)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    evaluations = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "eval_score" in line]
    assert [json.loads(line)["step"] for line in evaluations] == [20, 40, 60]


def test_a_checkpoint_of_a_version_that_kept_no_list_of_embeddings_is_gone_on_from(
    neobert: Run, signal_at_line: Callable[[Path, int], None], undisturbed: Path, tmp_path: Path
) -> None:
    signal_at_line(tmp_path / "metrics.jsonl", 4)
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 85
    checkpoint = tmp_path / "checkpoints" / f"checkpoint-{newest(tmp_path)}"
    (checkpoint / "used_rows.npy").unlink()
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name != "complete.json"}
    (checkpoint / "complete.json").write_text(json.dumps({"files": sizes}))
    data = tmp_path / "checkpoints/data.json"
    data.write_text(json.dumps(json.loads(data.read_text()) | {"trains used rows": True}))
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert_same_end(tmp_path, undisturbed)


def test_a_stop_at_the_end_of_an_epoch_does_not_lose_its_evaluation(
    neobert: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes during the last step of the first epoch."""
    from neobert.training.preemption import Preemption

    asked = iter([False] * 19 + [True] * 2)
    monkeypatch.setattr(Preemption, "agreed", lambda self: next(asked))
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 85
    assert newest(tmp_path) == 20
    monkeypatch.undo()
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert_same_end(tmp_path, undisturbed)
    evaluated = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in evaluated if "eval_score" in entry] == [20, 40, 60]


def test_a_signal_during_an_evaluation_stops_at_the_checkpoint_after_it(
    neobert: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another step, and without another checkpoint after that."""
    from neobert.training.preemption import Preemption

    asked = iter([False] * 20 + [True])
    monkeypatch.setattr(Preemption, "agreed", lambda self: next(asked))
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 85
    assert newest(tmp_path) == 20
    monkeypatch.undo()
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert_same_end(tmp_path, undisturbed)


def test_a_stop_at_the_very_end_just_finishes(
    neobert: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neobert.training.preemption import Preemption

    asked = iter([False] * 61 + [True] * 2)  # at every step, and after two of the three evaluations
    monkeypatch.setattr(Preemption, "agreed", lambda self: next(asked))
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert_same_end(tmp_path, undisturbed)


def test_after_a_crash_it_goes_on_from_the_newest_complete_checkpoint(
    neobert: Run, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if killed while the checkpoint of step 60 was being copied: it is there, but cut short."""
    directory = Path(shutil.copytree(undisturbed, tmp_path / "trial"))
    (directory / "result.json").unlink()
    cut = directory / "checkpoints" / "checkpoint-60" / "optimizer.pt"
    cut.write_bytes(cut.read_bytes()[:100])
    partial = directory / "checkpoints" / "partial-1" / "checkpoint-80"
    partial.mkdir(parents=True)
    assert neobert("glue", *SETTINGS, "--output-dir", directory) == 0
    output = capsys.readouterr()
    assert "checkpoint-60: optimizer.pt has 100 bytes instead of" in output.err
    assert re.search(r"resumed from step [24]0\n", output.out)  # the best one, if that of step 40 was not kept
    assert_same_end(directory, undisturbed)
    assert not partial.parent.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("model.safetensors", zero_page), ("optimizer.pt", zero_end), ("rng_state.pth", flip_bit),
     ("trainer_state.json", flip_bit), ("used_rows.npy", flip_bit)],
)  # fmt: skip
def test_a_checkpoint_whose_files_have_kept_their_sizes_alone_is_passed_over(
    neobert: Run, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    directory = Path(shutil.copytree(undisturbed, tmp_path / "trial"))
    (directory / "result.json").unlink()
    damage(directory / "checkpoints" / "checkpoint-60" / name)
    assert neobert("glue", *SETTINGS, "--output-dir", directory) == 0
    output = capsys.readouterr()
    assert re.search(rf"skipping the checkpoint .*/checkpoint-60: (its )?{re.escape(name)} ", output.err)
    assert re.search(r"resumed from step [24]0\n", output.out)
    assert_same_end(directory, undisturbed)
    assert checkpoints.find_fault(directory / "checkpoints" / "checkpoint-60") is None


def test_a_crash_between_the_last_checkpoint_and_the_result_costs_no_training(
    neobert: Run, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(shutil.copytree(undisturbed, tmp_path / "trial"))
    (directory / "result.json").unlink()
    assert neobert("glue", *SETTINGS, "--output-dir", directory) == 0
    assert "step 60/60" not in capsys.readouterr().out
    assert_same_end(directory, undisturbed)
    state = json.loads((directory / "checkpoints" / "checkpoint-60" / "trainer_state.json").read_text())
    before = state["stateful_callbacks"]["Report"]["attributes"]["earlier_seconds"]
    assert json.loads((directory / "result.json").read_text())["seconds"] > before > 0.1  # time adds up over attempts


def test_early_stopping_counts_on_after_a_resume(
    neobert: Run, signal_at_line: Callable[[Path, int], None], tmp_path: Path
) -> None:
    """A threshold that nothing can exceed: the first of 12 evaluations is the best, and the third after it the last."""
    settings = [*SETTINGS, "trainer.eval_strategy=steps", "trainer.eval_steps=5", "trainer.early_stopping_patience=3",
                "trainer.early_stopping_threshold=2.0", "trainer.save_total_limit=1"]  # fmt: skip
    undisturbed, directory = tmp_path / "undisturbed", tmp_path / "trial"
    assert neobert("glue", *settings, "--output-dir", undisturbed) == 0
    assert json.loads((undisturbed / "result.json").read_text())["steps"] == 20
    signal_at_line(directory / "metrics.jsonl", 5)
    assert neobert("glue", *settings, "--output-dir", directory) == 85
    assert 5 <= newest(directory) < 20
    assert neobert("glue", *settings, "--output-dir", directory) == 0
    assert_same_end(directory, undisturbed, step=20)


def test_a_checkpoint_of_another_length_is_refused(neobert: Run, undisturbed: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(undisturbed, tmp_path / "trial"))
    (directory / "result.json").unlink()
    state = directory / "checkpoints" / "checkpoint-60" / "trainer_state.json"
    state.write_text(state.read_text().replace('"max_steps": 60', '"max_steps": 30'))
    checkpoints.mark(state.parent)
    assert neobert("glue", *SETTINGS, "--output-dir", directory) == 1


def own_files(directory: Path, rows: list[str]) -> list[str]:
    (directory / "data.csv").write_text("text,label\n" + "".join(row + "\n" for row in rows))
    return [f"data.{name}_file={directory / 'data.csv'}" for name in ("train", "validation", "test")]


ROWS = [f"text {n},{'yes' if n % 3 else 'no'}" for n in range(32)]


@pytest.mark.parametrize(
    ("rows", "change"),
    [
        ([*ROWS[:-1], "text 0,yes"], "texts or labels have changed"),
        (ROWS + ROWS[:8], "training examples 32 then, 40 now; dev examples 32 then, 40 now; texts or labels"),
        ([row.replace("yes", "maybe") for row in ROWS], r"classes \['no', 'yes'\] then, \['maybe', 'no'\] now"),
    ],
)
def test_other_data_is_noticed_though_the_number_of_steps_is_the_same(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], change: str
) -> None:
    settings = [*TINY, *own_files(tmp_path, ROWS), "trainer.max_steps=2", "--output-dir", tmp_path / "trial"]
    assert neobert("glue", *settings) == 0
    (tmp_path / "trial" / "result.json").unlink()
    own_files(tmp_path, rows)
    assert neobert("glue", *settings) == 1
    assert re.search(rf"trial/checkpoints were trained on other data: {change}.*Start with", capsys.readouterr().err)
    own_files(tmp_path, ROWS)
    assert neobert("glue", *settings) == 0


@pytest.mark.parametrize("damage", ["cut", "page", None])
def test_predictions_without_the_best_checkpoint_are_refused_with_what_to_do(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str | None
) -> None:
    directory = tmp_path / "trial"
    settings = [*TINY, *own_files(tmp_path, ROWS), "trainer.num_train_epochs=2", "trainer.eval_strategy=steps",
                "trainer.eval_steps=1", "trainer.save_total_limit=9", "trainer.keep=all",
                "--output-dir", directory]  # fmt: skip
    assert neobert("glue", *settings) == 0
    best = directory / "checkpoints" / f"checkpoint-{json.loads((directory / 'result.json').read_text())['step']}"
    (directory / "result.json").unlink()
    if damage == "cut":
        (best / "model.safetensors").write_bytes(b"weig")
    elif damage == "page":
        zero_page(best / "model.safetensors")
    else:
        shutil.rmtree(best)
    assert neobert("glue", *settings) == 1
    error = capsys.readouterr().err
    assert f"the best checkpoint, {best}, cannot make the predictions for the test set: " in error
    assert f"Put it back, or remove {directory / 'checkpoints'} to begin anew." in error


def test_evaluating_more_often_does_not_change_the_training(neobert: Run, undisturbed: Path, tmp_path: Path) -> None:
    often = ["trainer.eval_strategy=steps", "trainer.eval_steps=7"]
    assert neobert("glue", *SETTINGS, *often, "--output-dir", tmp_path) == 0
    expected, found = weights(undisturbed, 60), weights(tmp_path, 60)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
