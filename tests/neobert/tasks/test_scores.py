"""One metric chooses the checkpoint, is the score, and is what the log tells; results that are not good say so."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neobert.training.best_trial import best_trial
from tests.neobert.conftest import TINY
from tests.neobert.damage import forget_checksums

Run = Callable[..., int]
WORDS = {"up": "good fine great", "down": "bad poor awful"}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Sentences whose first word tells the class."""
    return [
        (f"{WORDS[label].split()[n % 3]} thing number {n % 7}", label)
        for label, count in counts.items()
        for n in range(count)
    ]


def own_files(directory: Path, counts: dict[str, int]) -> list[str]:
    """The settings of training and validation file; both hold the same examples."""
    path = directory / "data.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(counts)))
    return [f"data.{name}_file={path}" for name in ("train", "validation")]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial on own files of two unequal classes, with F1 as its metric."""
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("f1")
    settings = [*TINY, *own_files(directory, {"down": 60, "up": 20}), "trainer.metric_for_best_model=macro_f1",
                "optimizer.lr=1e-2", "trainer.num_train_epochs=3", "data.max_eval_samples=80"]  # fmt: skip
    assert run(["glue", *settings, "--output-dir", str(directory / "trial")]) == 0
    return directory / "trial"


def evaluations(directory: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {entry["step"]: entry for entry in lines if "eval_score" in entry}


def test_the_metric_that_the_settings_name_is_the_score(learned: Path) -> None:
    result = read(learned / "result.json")
    by_step = evaluations(learned)
    best = max(by_step, key=lambda step: by_step[step]["eval_macro_f1"])
    assert (result["metric"], result["step"]) == ("macro_f1", best)
    assert result["score"] == result["metrics"]["macro_f1"] == by_step[best]["eval_macro_f1"]
    assert all(entry["eval_score"] == entry["eval_macro_f1"] for entry in by_step.values())
    assert result["baseline"] == pytest.approx((2 * 0.75 / 1.75) / 2), "F1 of the majority class, and 0 of the other"
    assert result["score"] > 0.9
    assert "warnings" not in result
    of_each = [result["metrics"][f"f1_{label}"] for label in ("down", "up")]
    assert sum(of_each) / 2 == pytest.approx(result["score"])
    assert 0.5 < result["metrics"]["balanced_accuracy"] <= 1


@pytest.mark.parametrize("metric", ["f1", "loss"])
def test_the_log_compares_a_metric_with_itself(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    settings = [*TINY, *own_files(tmp_path, {"down": 60, "up": 20}), f"trainer.metric_for_best_model={metric}",
                "trainer.num_train_epochs=3"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    output = capsys.readouterr().out
    told = re.findall(
        rf"evaluation at step (\d+): {metric} ([\d.]+) \((best so far|best: ([\d.]+) at step (\d+))\)", output
    )
    by_step = {str(step): f"{entry[f'eval_{metric}']:.4f}" for step, entry in evaluations(tmp_path / "out").items()}
    assert [(step, value) for step, value, *_ in told] == list(by_step.items())
    assert all(by_step[step] == best for *_, best, step in told if step)
    assert " score " not in output
    result = read(tmp_path / "out/result.json")
    assert f"done: {metric} {result['score']:.4f}" in output
    value = (min if metric == "loss" else max)(
        entry[f"eval_{metric}"] for entry in evaluations(tmp_path / "out").values()
    )
    assert (result["metric"], result["score"]) == (metric, value)


def test_a_later_stage_takes_the_trial_with_the_lowest_loss(neobert: Run, learned: Path, tmp_path: Path) -> None:
    trials = [tmp_path / name for name in ("far", "near")]
    for trial, loss in zip(trials, (0.9, 0.2), strict=True):
        shutil.copytree(learned, trial)
        result = read(trial / "result.json")
        (trial / "result.json").write_text(json.dumps({**result, "metric": "loss", "score": loss}))
    assert best_trial(trials) == trials[1]
    (tmp_path / "new.csv").write_text("text\ngood thing\n")
    asked = ["do_train=false", f"data.test_file={tmp_path}/new.csv", "data.max_length=32", "trainer.use_cpu=true",
             f"model.pretrained_checkpoint_dir=[{trials[0]}, {trials[1]}]"]  # fmt: skip
    assert neobert("glue", *asked, "--output-dir", tmp_path / "out") == 0
    (trials[0] / "result.json").write_text(json.dumps({**result, "metric": "accuracy"}))
    assert neobert("glue", *asked, "--output-dir", tmp_path / "other") == 2


# -- a test file ----------------------------------------------------------------------------------------------------


def asked(learned: Path, file: Path, out: Path, *more: str) -> list[object]:
    return ["glue", "do_train=false", f"data.test_file={file}", "data.max_length=32", "trainer.use_cpu=true",
            f"model.pretrained_checkpoint_dir={learned}", *more, "--output-dir", out]  # fmt: skip


def test_a_test_file_with_labels_is_scored_by_a_trained_model_with_that_file_alone(
    neobert: Run, learned: Path, tmp_path: Path
) -> None:
    shutil.copy(learned.parent / "data.csv", tmp_path / "new.csv")
    lines = (tmp_path / "new.csv").read_text().splitlines()
    numbered = ["id,text,label", *(f"row {n},{line}" for n, line in enumerate(lines[1:]))]
    (tmp_path / "new.csv").write_text("\n".join(numbered))
    more = ["data.id_column=id", "trainer.metric_for_best_model=macro_f1"]
    assert neobert(*asked(learned, tmp_path / "new.csv", tmp_path / "out", *more)) == 0
    result, before = read(tmp_path / "out/result.json"), read(learned / "result.json")
    assert (result["metric"], result["score"]) == ("test_macro_f1", before["score"]), "these are the same examples"
    assert result["metrics"]["test_loss"] == pytest.approx(before["metrics"]["loss"], rel=1e-5)
    assert "baseline" not in result
    everything = read(tmp_path / "out/all_results.json")
    assert everything["test_macro_f1"] == result["score"]
    assert everything["test_samples"] == 80
    predictions = table(tmp_path / "out/predictions/test.tsv")
    assert list(predictions[0]) == ["index", "id", "prediction", "p(down)", "p(up)", "label"]
    assert [row["id"] for row in predictions] == [f"row {n}" for n in range(80)]
    right = [row["prediction"] == row["label"] for row in predictions]
    assert sum(right) / 80 == result["metrics"]["test_accuracy"]
    assert all((float(row["p(up)"]) > 0.5) == (row["prediction"] == "up") for row in predictions)


def test_a_test_file_without_labels_is_predicted_and_cannot_be_scored(
    neobert: Run, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("text\ngood thing\nbad thing\n")
    assert neobert(*asked(learned, tmp_path / "new.csv", tmp_path / "out")) == 0
    result = read(tmp_path / "out/result.json")
    assert (result["metric"], result["score"], "warnings" in result) == ("predictions", 2, False)
    assert list(table(tmp_path / "out/predictions/test.tsv")[0]) == ["index", "prediction", "p(down)", "p(up)"]
    assert neobert(*asked(learned, tmp_path / "new.csv", tmp_path / "no", "trainer.metric_for_best_model=f1")) == 2
    told = "trainer.metric_for_best_model: needs labels in data.test_file, which has none"
    assert told in capsys.readouterr().err


def test_a_training_also_scores_its_test_file(neobert: Run, tmp_path: Path) -> None:
    """The score stays that of the dev set."""
    files = own_files(tmp_path, {"down": 20, "up": 20})
    (tmp_path / "test.csv").write_text("text,label\ngood thing number 1,up\nbad thing number 2,up\n")
    settings = [*TINY, *files, f"data.test_file={tmp_path}/test.csv", "trainer.num_train_epochs=2"]
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    result = read(tmp_path / "out/result.json")
    assert (result["metric"], result["score"]) == ("accuracy", result["metrics"]["accuracy"])
    right = [row["prediction"] == row["label"] for row in table(tmp_path / "out/predictions/test.tsv")]
    assert result["metrics"]["test_accuracy"] == sum(right) / 2
    everything = read(tmp_path / "out/all_results.json")
    assert everything["test_accuracy"] == sum(right) / 2
    assert "eval_test_accuracy" not in everything


# -- results that are not good --------------------------------------------------------------------------------------


def test_a_training_that_went_wrong_says_so_in_log_and_result(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*TINY, *own_files(tmp_path, {"down": 30, "up": 10}), "optimizer.lr=10", "scheduler.warmup_steps=0",
                "trainer.num_train_epochs=2", "trainer.gradient_clipping=null"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    warnings = read(tmp_path / "out/result.json")["warnings"]
    kinds = [text.partition(":")[0] for text in warnings]
    assert "the training loss has risen" in kinds
    assert {"no better than the majority class", "the predictions for the dev set are all the same"} & {*kinds}
    error = capsys.readouterr().err
    assert all(f"warning: {text}\n" in error for text in warnings)


def test_the_best_checkpoint_of_an_older_version_lacks_newer_metrics_and_is_a_result(
    neobert: Run, tmp_path: Path
) -> None:
    settings = [*TINY, "task_name=mnli", "data.generated=64", "trainer.num_train_epochs=1", "trainer.keep=all"]
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    (tmp_path / "result.json").unlink()
    (state,) = tmp_path.glob("checkpoints/checkpoint-*/trainer_state.json")
    kept = json.loads(state.read_text())
    newer = ("eval_f1_", "eval_macro_f1", "eval_balanced_accuracy", "eval_distinct_predictions")
    kept["log_history"] = [
        {name: value for name, value in entry.items() if not name.startswith(newer) or name == "eval_f1_mm"}
        for entry in kept["log_history"]
    ]
    text = json.dumps(kept)
    state.write_text(text + " " * (state.stat().st_size - len(text)))  # the checkpoint knows the sizes of its files
    forget_checksums(state.parent)
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    result = read(tmp_path / "result.json")
    assert result["score"] == pytest.approx((result["metrics"]["accuracy"] + result["metrics"]["accuracy_mm"]) / 2)
    assert "macro_f1" not in result["metrics"]
    assert "eval_f1 = " in (tmp_path / "eval_results_mnli-mm.txt").read_text()
