"""`neobert glue` from start to result, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from neobert.config import GlueConfig, validate
from neobert.data.grammar import write_glue_directory
from neobert.tasks import glue
from tests.neobert.conftest import TINY, TINY_MODEL, as_if_trained

Run = Callable[..., int]
SHORT = [*TINY, "data.generated=64", "trainer.num_train_epochs=2"]


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


def entries(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small training that learns something."""
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("learned")
    settings = [
        "task_name=qnli", "data.generated=1600", "data.max_length=32", "model.allow_random_weights=true",
        "model.hidden_size=32",
        "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=96",
        "model.initializer_range=0.1", "optimizer.lr=3e-3", "trainer.num_train_epochs=3", "trainer.use_cpu=true",
        "trainer.keep=all",
    ]  # fmt: skip
    assert run(["glue", *settings, "--output-dir", str(directory)]) == 0
    return directory


def test_a_new_neobert_learns_far_more_than_the_majority_class(learned: Path) -> None:
    result = read(learned / "result.json")
    assert result["baseline"] == 0.53
    assert result["score"] > 0.85  # type: ignore[operator]


def test_the_result_is_that_of_the_best_evaluation(learned: Path) -> None:
    result = read(learned / "result.json")
    evaluations = {entry["step"]: entry for entry in entries(learned) if "eval_score" in entry}
    assert list(evaluations) == [50, 100, 150]
    best = max(evaluations.values(), key=lambda entry: entry["eval_score"])
    assert (result["score"], result["step"]) == (best["eval_score"], best["step"])
    assert result["metrics"]["loss"] == best["eval_loss"]  # type: ignore[index]
    assert (learned / "checkpoints" / f"checkpoint-{best['step']}" / "complete.json").is_file()


def test_every_file_says_what_the_launcher_expects(learned: Path) -> None:
    result = read(learned / "result.json")
    assert set(result) == {
        "schema", "task", "task_name", "score", "metric", "baseline", "baseline_name", "metrics", "seconds", "step",
        "steps", "versions", "data", "classes",
    }  # fmt: skip
    assert (result["schema"], result["task"], result["metric"], result["data"]) == (1, "glue", "accuracy", "generated")
    assert (result["baseline_name"], result["steps"]) == ("majority class", 150)
    assert result["classes"] == {"entailment": {"train": 792, "dev": 188}, "not_entailment": {"train": 808, "dev": 212}}
    assert all(isinstance(value, float) for value in result["metrics"].values())  # type: ignore[attr-defined]
    assert 0 < result["seconds"] < 120  # type: ignore[operator]
    assert {"neobert", "python", "torch", "transformers"} <= set(result["versions"])  # type: ignore[call-overload]

    progress = read(learned / "progress.json")
    assert set(progress) == {
        "schema", "step", "total_steps", "loss", "samples_per_second", "tokens_per_second", "seconds_left", "phase",
        "time",
    }  # fmt: skip
    assert (progress["step"], progress["total_steps"], progress["phase"]) == (150, 150, "done")
    assert abs(time.time() - progress["time"]) < 600  # type: ignore[operator]

    settings = yaml.safe_load((learned / "config.yaml").read_text())
    assert settings["task"] == "glue"
    assert validate(GlueConfig, settings["config"]).data.generated == 1600
    assert len(list((learned / "tensorboard").glob("events.out.tfevents.*"))) == 1
    names = {path.name for path in (learned / "checkpoints" / "checkpoint-150").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "trainer_state.json", "optimizer.pt"} <= names


def test_speed_counts_real_tokens_without_padding(learned: Path) -> None:
    """Every training step has 32 examples of 18.1 tokens on average; padded to the longest they are up to 22."""
    rates = [entry for entry in entries(learned) if "tokens_per_second" in entry]
    ratios = [entry["tokens_per_second"] / entry["samples_per_second"] for entry in rates]
    assert sum(ratios) / len(ratios) == pytest.approx(18.1, abs=0.3)


def test_doing_it_again_says_that_it_is_done(neobert: Run, learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load((learned / "config.yaml").read_text())["config"]
    again = learned.parent / "again.yaml"
    again.write_text(yaml.safe_dump(settings))
    before = (learned / "result.json").stat().st_mtime_ns
    assert neobert("glue", "--config", again, "--output-dir", learned) == 0
    assert capsys.readouterr().out == f"already done: {learned / 'result.json'}\n"
    assert (learned / "result.json").stat().st_mtime_ns == before


def test_other_settings_in_a_directory_that_is_taken_are_refused(
    neobert: Run, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load((learned / "config.yaml").read_text())["config"]
    other = learned.parent / "other.yaml"
    other.write_text(yaml.safe_dump(settings))
    assert neobert("glue", "--config", other, "optimizer.lr=1e-4", "--output-dir", learned) == 2
    message = capsys.readouterr().err
    assert "belongs to a trial with other settings: optimizer.lr is 0.003 there and 0.0001 here" in message


def test_mending_a_mistake_needs_no_other_directory(neobert: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert neobert("glue", *TINY, "task_name=rte", f"data.dir={tmp_path / 'typo'}", "--output-dir", out) == 2
    assert neobert("glue", *SHORT, "task_name=rte", "--output-dir", out) == 0


def test_a_checkpoint_is_a_model_to_go_on_from(neobert: Run, learned: Path, tmp_path: Path) -> None:
    """As in MNLI first, RTE from there: the encoder comes along, the head too where the classes are the same."""
    model = learned / "checkpoints" / "checkpoint-150"
    settings = ["task_name=qnli", f"model.name_or_path={model}", "data.generated=32", "trainer.max_steps=1",
                "data.max_length=32", "optimizer.lr=1e-9"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    last = [entry for entry in entries(learned) if "eval_score" in entry][-1]
    assert read(tmp_path / "result.json")["score"] == last["eval_score"]


@pytest.mark.parametrize("task", ["mnli", "stsb", "mrpc"])
def test_tasks_with_several_metrics_are_averaged(neobert: Run, tmp_path: Path, task: str) -> None:
    """Read from GLUE files, as from a download."""
    write_glue_directory(tmp_path / "glue", task, 64)
    settings = [*TINY, f"task_name={task}", f"data.dir={tmp_path / 'glue'}", "trainer.num_train_epochs=1"]
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    result = read(tmp_path / "out" / "result.json")
    parts = {"mnli": ["accuracy", "accuracy_mm"], "stsb": ["pearson", "spearmanr"], "mrpc": ["accuracy", "f1"]}[task]
    assert result["metric"] == "+".join(parts)
    assert result["score"] == pytest.approx(sum(result["metrics"][part] for part in parts) / 2)  # type: ignore[index]
    assert result["data"] == "glue directory"
    if task == "stsb":
        assert (result["baseline"], result["baseline_name"]) == (0.0, "mean of the training labels")


def test_another_metric_can_choose_the_best_checkpoint(neobert: Run, tmp_path: Path) -> None:
    chosen = ["task_name=rte", "trainer.metric_for_best_model=loss", "trainer.num_train_epochs=4"]
    assert neobert("glue", *TINY, "data.generated=64", *chosen, "--output-dir", tmp_path) == 0
    losses = {entry["step"]: entry["eval_loss"] for entry in entries(tmp_path) if "eval_loss" in entry}
    assert read(tmp_path / "result.json")["step"] == min(losses, key=lambda step: losses[step])


def test_own_files_give_predictions_of_the_best_checkpoint(neobert: Run, tmp_path: Path) -> None:
    rows = [(f"{'good' if n % 3 else 'bad'} thing {n}", "up" if n % 3 else "down") for n in range(90)]
    text = "text,label\n" + "".join(f"{sentence},{label}\n" for sentence, label in rows)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "test.csv").write_text("text\n" + "".join(f"{sentence}\n" for sentence, _ in rows))
    files = [f"data.train_file={tmp_path}/train.csv", f"data.validation_file={tmp_path}/dev.csv",
             f"data.test_file={tmp_path}/test.csv"]  # fmt: skip
    settings = [*TINY, "data.max_eval_samples=90", "optimizer.lr=1e-2", "trainer.num_train_epochs=6"]
    assert neobert("glue", *settings, *files, "--output-dir", tmp_path / "out") == 0
    header, *lines = (tmp_path / "out" / "predictions" / "test.tsv").read_text().splitlines()
    assert header == "index\tprediction\tp(down)\tp(up)"
    assert [line.split("\t")[0] for line in lines] == [str(n) for n in range(90)]
    right = sum(line.split("\t")[1] == label for line, (_, label) in zip(lines, rows, strict=True))
    result = read(tmp_path / "out" / "result.json")
    assert right / 90 == pytest.approx(result["score"])  # the test file is the dev file: in order, and the best one's
    assert result["score"] > result["baseline"] == pytest.approx(60 / 90)  # type: ignore[operator]
    assert result["data"] == "own files"


def test_a_regression_of_ones_own_predicts_numbers(neobert: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"a": "x {n}", "label": {n / 7}}}\n' for n in range(20)))
    files = [f"data.{name}_file={tmp_path}/a.jsonl" for name in ("train", "validation", "test")]
    assert neobert("glue", *TINY, *files, "trainer.max_steps=2", "--output-dir", tmp_path / "out") == 0
    result = read(tmp_path / "out" / "result.json")
    assert result["metric"] == "pearson+spearmanr"
    header, *lines = (tmp_path / "out" / "predictions" / "test.tsv").read_text().splitlines()
    assert header == "index\tprediction\tlabel"
    assert [float(line.split("\t")[2]) for line in lines] == [n / 7 for n in range(20)]
    guesses, labels = zip(*(map(float, line.split("\t")[1:]) for line in lines), strict=True)
    assert result["metrics"]["test_pearson"] == pytest.approx(np.corrcoef(guesses, labels)[0, 1], rel=1e-4)


def test_a_number_that_others_leave_out_of_the_loss_counts(neobert: Run, tmp_path: Path) -> None:
    """-100 marks what is not to be predicted elsewhere; all examples but one having it, nothing was divided by one."""
    losses = []
    for number in (-100.0, -101.0):
        path = tmp_path / f"{number}.csv"
        path.write_text("text,label\n" + "".join(f"x {n},{number}\n" for n in range(7)) + "y,1.5\n")
        files = [f"data.{name}_file={path}" for name in ("train", "validation")]
        out = tmp_path / f"out{number}"
        assert neobert("glue", *TINY, *files, "trainer.max_steps=1", "--output-dir", out) == 0
        losses.append(entries(out)[0]["loss"])
    assert losses[0] == pytest.approx(7 / 8 * 100**2, rel=0.01)
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("decay", [0, 0.01])
def test_of_embeddings_the_used_rows_alone_are_trained_where_no_decay_reaches_the_others(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], decay: float
) -> None:
    settings = [*TINY, "task_name=rte", "data.generated=40", "trainer.max_steps=4", f"optimizer.weight_decay={decay}",
                "trainer.keep=all"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    told = re.search(r"vocabulary: (\d+) of (\d+) entries are in the texts", capsys.readouterr().out)
    assert (told is not None) == (decay == 0)
    (checkpoint,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    moments = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    rows = load_file(checkpoint / "model.safetensors")["model.encoder.weight"].shape[0]
    assert (rows in {state["exp_avg"].shape[0] for state in moments.values()}) == (decay != 0)
    assert told is None or (int(told[1]) < int(told[2]) == rows)


def test_it_tells_what_files_of_ones_own_were_taken_for(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, labels in (("classes", ["no", "yes"]), ("numbers", ["0.5", "4"])):
        path = tmp_path / f"{name}.csv"
        path.write_text(",idx,review,label\n" + "".join(f"{n},1,text,{label}\n" for n, label in enumerate(labels)))
        files = [f"data.{part}_file={path}" for part in ("train", "validation")]
        assert neobert("glue", *TINY, *files, "trainer.max_steps=1", "--output-dir", tmp_path / name) == 0
        columns = {"texts": ["review"], "label": "label", "id": None, "ignored": ["", "idx"]}
        assert read(tmp_path / name / "result.json")["columns"] == columns
    output = capsys.readouterr().out
    assert output.count("columns: text 'review', label 'label'; not used: '' (unnamed), 'idx' (numbers)\n") == 2
    assert "classes: no (1 train, 1 dev), yes (1 train, 1 dev)\n" in output
    assert "labels: numbers from 0.5 to 4 (regression)\n" in output
    counts = {"no": {"train": 1, "dev": 1}, "yes": {"train": 1, "dev": 1}}
    assert read(tmp_path / "classes" / "result.json")["classes"] == counts
    assert "classes" not in read(tmp_path / "numbers" / "result.json")


@pytest.fixture(scope="module")
def up_or_down(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial that was trained on own files."""
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("own")
    rows = [(f"{'good' if n % 3 else 'bad'} thing {n}", "up" if n % 3 else "down") for n in range(30)]
    (directory / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    files = [f"data.{name}_file={directory}/a.csv" for name in ("train", "validation")]
    settings = [*TINY, *files, "trainer.max_steps=2", "data.labels=[up, down]"]
    assert run(["glue", *settings, "--output-dir", str(directory / "trial")]) == 0
    return directory / "trial"


def test_new_rows_are_predicted_by_a_trained_model_with_their_file_alone(
    neobert: Run, up_or_down: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model names the classes, in its own order, and paths may begin at home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "new.csv").write_text("id,text\nx1,good thing\nx2,bad thing\n")
    settings = ["do_train=false", "data.test_file=~/new.csv", "data.id_column=id", "data.max_length=32",
                f"model.pretrained_checkpoint_dir={up_or_down}", "trainer.use_cpu=true"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    result = read(tmp_path / "out" / "result.json")
    assert (result["metric"], result["score"]) == ("predictions", 2)
    assert list(result["classes"]) == ["up", "down"]  # type: ignore[call-overload]
    assert result["columns"] == {"texts": ["text"], "label": None, "id": "id", "ignored": []}
    assert "columns: text 'text', id 'id'\nclasses: up, down\n" in capsys.readouterr().out
    kept = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["config"]
    assert kept["data"]["test_file"] == "~/new.csv", "as the user wrote it"


def test_classes_that_a_model_does_not_name_are_its_numbers(
    neobert: Run, up_or_down: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(up_or_down / "checkpoints/checkpoint-2", tmp_path / "model"))
    said = json.loads((model / "config.json").read_text())
    said |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (model / "config.json").write_text(json.dumps(said))
    (model / "complete.json").unlink()  # which holds the checksums of what was there
    (tmp_path / "new.csv").write_text("text,label\ngood thing,1\nbad thing,0\n")
    settings = ["do_train=false", f"data.test_file={tmp_path}/new.csv", "data.max_length=32",
                f"model.name_or_path={model}", "trainer.use_cpu=true"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    assert read(tmp_path / "out" / "result.json")["classes"] == {"0": {"test": 1}, "1": {"test": 1}}
    assert "the model does not name its 2 classes: they are called by their numbers, from 0." in capsys.readouterr().err


def test_mnli_on_files_of_ones_own_has_one_dev_set(neobert: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("premise,hypothesis,label\na,b,neutral\nc,d,entailment\n")
    files = [f"data.{part}_file={tmp_path}/a.csv" for part in ("train", "validation")]
    assert (
        neobert("glue", *TINY, "task_name=mnli", *files, "trainer.max_steps=1", "--output-dir", tmp_path / "out") == 0
    )
    assert read(tmp_path / "out" / "result.json")["metric"] == "accuracy"


def test_a_package_that_the_metrics_need_is_missed_before_the_training(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # type: ignore[arg-type]
    assert neobert("glue", *SHORT, "task_name=mrpc", "--output-dir", tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "neobert: the package scikit-learn is missing, which the metrics of mrpc come from: "
        "run `pip install -c constraints.txt -e '.[eval]'` in the checkout\n"
    )
    assert captured.out == ""


@pytest.mark.parametrize("setting", ["model.tokenizer", "model.name_or_path"])
def test_what_must_come_from_the_hub_is_not_waited_for_without_one(
    neobert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    asked = []
    monkeypatch.setattr(glue, "work_offline_if_unreachable", lambda: asked.append(setting))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = ["task_name=rte", "data.generated=9", "data.max_length=32", "model.allow_random_weights=true"]
    assert neobert("glue", *base, f"{setting}=no-such/model", "--output-dir", tmp_path) == 2
    assert asked == [setting]


def test_files_of_ones_own_decide_which_metrics_there_are(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,2\n")
    files = [f"data.{name}_file={tmp_path}/a.csv" for name in ("train", "validation")]
    assert (
        neobert("glue", *TINY, *files, "trainer.metric_for_best_model=pearson", "--output-dir", tmp_path / "out") == 2
    )
    assert "trainer.metric_for_best_model: 'pearson' is not measured on own files" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["trainer.mixed_precision=bf16"], ["trainer.gradient_checkpointing=true"],
                                     ["trainer.dataloader_num_workers=1"], ["scheduler.name=cosine"],
                                     ["trainer.eval_strategy=steps", "trainer.eval_steps=4"]])  # fmt: skip
def test_options_train(neobert: Run, tmp_path: Path, options: list[str]) -> None:
    assert neobert("glue", *SHORT, "task_name=sst2", *options, "--output-dir", tmp_path) == 0
    assert read(tmp_path / "result.json")["steps"] == 16


def test_bf16_really_computes_in_bf16(neobert: Run, tmp_path: Path) -> None:
    losses = []
    for precision in ("no", "bf16"):
        out = tmp_path / precision
        options = ["task_name=sst2", f"trainer.mixed_precision={precision}", "trainer.max_steps=1"]
        assert neobert("glue", *SHORT, *options, "--output-dir", out) == 0
        losses.append(entries(out)[0]["loss"])
        kept = load_file(out / "checkpoints" / "checkpoint-1" / "model.safetensors")
        assert {weight.dtype for weight in kept.values()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_same_seed_gives_the_same_and_another_seed_another_training(neobert: Run, tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["task_name=sst2", f"seed={seed}", "trainer.max_steps=2", "trainer.logging_steps=1"]
        assert neobert("glue", *SHORT, *options, "--output-dir", tmp_path / name) == 0
        losses.append([entry["loss"] for entry in entries(tmp_path / name) if "loss" in entry])
    assert losses[0] == losses[1] != losses[2]


def test_a_diverging_training_fails_with_advice(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["task_name=stsb", "optimizer.lr=1e20", "trainer.gradient_clipping=null", "scheduler.warmup_steps=0"]
    assert neobert("glue", *SHORT, *wild, "--output-dir", tmp_path) == 1
    assert "the training has diverged. A lower optimizer.lr" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


def test_a_checkpoint_that_cannot_be_written_ends_the_training_and_harms_no_other(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the full disk; it lets every file through but a checkpoint's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    settings = [*SHORT, "task_name=sst2", "model.hidden_size=96", "model.intermediate_size=384"]
    for limit in (limits[0], 200_000):
        epochs = f"trainer.num_train_epochs={1 if limit == limits[0] else 2}"
        out = tmp_path / str(limit == limits[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            code = neobert("glue", *settings, epochs, "--output-dir", out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert code == (0 if limit == limits[0] else 1)
    (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert error.startswith(f"neobert: the checkpoint of step 8 cannot be written to {out / 'checkpoints'}: ")
    assert "File too large" in error
    assert list((out / "checkpoints").glob("checkpoint-*")) == []
    # Once there is room, the same command goes on.
    assert neobert("glue", *settings, epochs, "--output-dir", out) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TINY_MODEL, "task_name=rte", "data.dir=/nowhere"],
         "neobert: /nowhere: does not exist; data.dir must be a directory"),
        (["task_name=rte", "data.generated=9", "model.name_or_path=/nowhere"], "model.name_or_path: there is no dir"),
        ([*TINY_MODEL, "task_name=rte", "data.generated=9", "trainer.mixed_precision=fp16",
          "trainer.use_cpu=true"],
         "mixed_precision is fp16, which needs a GPU, and use_cpu is true: bf16 works without"),
        (["task_name=rte", "data.generated=9"], "model: is required"),
        (["task_name=rte", "data.generated=9", "model.hidden_size=64"], "allow_random_weights: true"),
        ([*TINY_MODEL, "task_name=wnli", "data.generated=99999"], "the grammar has hardly more than"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_message_and_exit_code_2(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert neobert("glue", *arguments, "--output-dir", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_directory_that_cannot_be_written_to_is_a_users_mistake(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert neobert("glue", *SHORT, "task_name=rte", "--output-dir", tmp_path / "file" / "out") == 2
    assert capsys.readouterr().err == f"neobert: {tmp_path / 'file' / 'out'}: cannot be written to: Not a directory\n"


def test_a_real_encoder_trains_on_glue_files(neobert: Run, glue_data: Path, minilm: Path, tmp_path: Path) -> None:
    settings = ["task_name=rte", f"data.dir={glue_data}", f"model.name_or_path={minilm}", "data.max_length=32",
                "data.max_train_samples=16", "data.max_eval_samples=16", "trainer.per_device_train_batch_size=8",
                "trainer.num_train_epochs=1"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    assert read(tmp_path / "result.json")["steps"] == 2


# -- neighbours in a batch --------------------------------------------------------------------------------------------


def test_a_tokenizer_that_pads_left_does_not_change_what_bert_learns(
    neobert: Run, tiny_bert: Path, tmp_path: Path
) -> None:
    left = Path(shutil.copytree(tiny_bert, tmp_path / "left"))
    settings = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    losses = []
    for model in (tiny_bert, left):
        options = ["task_name=rte", "data.generated=16", f"model.name_or_path={model}", "data.max_length=32",
                   "trainer.max_steps=1", "data.max_eval_samples=40", "trainer.use_cpu=true"]  # fmt: skip
        out = tmp_path / f"out-{model.name}"
        assert neobert("glue", *options, "--output-dir", out) == 0
        losses.append([entries(out)[0]["loss"], read(out / "result.json")["metrics"]["loss"]])  # type: ignore[index]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_that_sees_padding_scores_the_same_in_batches_of_any_size(
    neobert: Run, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer, FNetConfig, FNetForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    torch.manual_seed(0)
    shape = FNetConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, intermediate_size=32,
                       max_position_embeddings=64, type_vocab_size=2)  # fmt: skip
    as_if_trained(FNetForSequenceClassification(shape)).save_pretrained(tmp_path / "fnet")
    tokenizer.save_pretrained(tmp_path / "fnet")
    losses = []
    for size in (1, 40):
        options = ["task_name=rte", "do_train=false", "data.generated=16", f"model.name_or_path={tmp_path / 'fnet'}",
                   "data.max_length=32", "data.max_eval_samples=40", f"trainer.per_device_eval_batch_size={size}",
                   "trainer.use_cpu=true", "model.allow_random_weights=true"]  # fmt: skip
        assert neobert("glue", *options, "--output-dir", tmp_path / f"{size}") == 0
        losses.append(read(tmp_path / f"{size}" / "result.json")["metrics"]["loss"])  # type: ignore[index]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert "padding changes what FNetForSequenceClassification says of a text" in capsys.readouterr().out


# -- run_glue's ways ------------------------------------------------------------------------------------------------


def test_each_evaluation_and_the_whole_leave_run_glues_files(neobert: Run, tmp_path: Path) -> None:
    assert neobert("glue", *SHORT, "task_name=mnli", "--output-dir", tmp_path) == 0
    result = read(tmp_path / "result.json")
    steps = {path.name for path in tmp_path.glob("all_results_step_*.json")}
    assert steps == {"all_results_step_8.json", "all_results_step_16.json"}
    best = read(tmp_path / f"all_results_step_{result['step']}.json")
    everything = read(tmp_path / "all_results.json")
    for name in ("eval_accuracy", "eval_accuracy_mm", "eval_loss", "eval_f1", "eval_precision_mm", "eval_recall"):
        assert everything[name] == best[name]
    assert (everything["train_samples"], everything["eval_samples"], everything["eval_samples_mm"]) == (64, 40, 40)
    lines = dict(line.split(" = ") for line in (tmp_path / "eval_results.txt").read_text().splitlines())
    assert float(lines["eval_accuracy_mm"]) == best["eval_accuracy_mm"]
    for name, suffix in (("mnli", ""), ("mnli-mm", "_mm")):
        own = (tmp_path / f"eval_results_{name}.txt").read_text()
        assert f"eval_accuracy = {best['eval_accuracy' + suffix]}\n" in own
        assert "_mm" not in own


def test_a_trained_model_is_only_looked_at_and_asked(neobert: Run, learned: Path, tmp_path: Path) -> None:
    """do_train: false. What it scores is what it scored, and what it predicts is what it is scored on."""
    write_glue_directory(tmp_path / "glue", "qnli", 20)
    dev = (tmp_path / "glue/QNLI/dev.tsv").read_text().splitlines()
    (tmp_path / "glue/QNLI/test.tsv").write_text("".join(line.rpartition("\t")[0] + "\n" for line in dev))
    (tmp_path / "glue/QNLI/train.tsv").unlink()  # run_glue's --do_eval does without, too
    settings = ["task_name=qnli", "do_train=false", f"data.dir={tmp_path / 'glue'}", "data.max_length=32",
                f"model.name_or_path={learned}", "trainer.use_cpu=true"]  # fmt: skip
    assert neobert("glue", *settings, "do_predict=true", "--output-dir", tmp_path / "both") == 0
    before, result = read(learned / "result.json"), read(tmp_path / "both/result.json")
    assert result["score"] == before["score"]
    assert (result["step"], result["steps"]) == (0, 0)
    assert "baseline" not in result, "nobody knows which class has the majority in the training set"
    (tmp_path / "glue/QNLI/dev.tsv").unlink()
    header, *lines = (tmp_path / "both/predictions/QNLI.tsv").read_text().splitlines()
    right = [line.split("\t")[1] == row.split("\t")[-1] for line, row in zip(lines, dev[1:], strict=True)]
    assert sum(right) / 400 == pytest.approx(result["score"])
    assert neobert("glue", *settings, "do_eval=false", "do_predict=true", "--output-dir", tmp_path / "said") == 0
    said = read(tmp_path / "said/result.json")
    assert (said["metric"], said["score"]) == ("predictions", 400)
    assert (tmp_path / "said/predictions/QNLI.tsv").read_text() == "\n".join([header, *lines, ""])


@pytest.mark.parametrize("asked", [[], ["do_eval=false", "do_predict=true"]])
def test_what_is_not_finite_is_no_result(
    neobert: Run, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    """Finite weights, too large to compute with: all predictions would be the first class."""
    model = shutil.copytree(learned / "checkpoints/checkpoint-150", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"classifier.weight": torch.full((2, 32), 3e38)}, model / "model.safetensors", {"format": "pt"})
    (model / "complete.json").unlink()  # which holds the checksums of what was there
    settings = ["task_name=qnli", "do_train=false", "data.generated=32", "data.max_length=32",
                "data.max_predict_samples=9", "data.max_eval_samples=9", f"model.name_or_path={model}"]  # fmt: skip
    assert neobert("glue", *settings, *asked, "--output-dir", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "what the model computes is not finite (" + ("9 of 9 pred" if asked else "accuracy is nan") in error
    assert not (tmp_path / "out/result.json").exists()
    assert not (tmp_path / "out/predictions").exists()


def test_a_model_that_saves_a_shared_matrix_once_predicts_with_its_best_weights(
    neobert: Run, tiny_bert: Path, tmp_path: Path
) -> None:
    """As BART does, whose encoder and decoder have the same embeddings."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    shape = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.sep_token_id,
    )  # fmt: skip
    as_if_trained(transformers.BartForSequenceClassification(shape)).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    settings = ["task_name=rte", "data.generated=32", "data.max_length=32", "data.max_eval_samples=9",
                "trainer.num_train_epochs=1", "trainer.use_cpu=true", f"model.name_or_path={tmp_path / 'bart'}",
                "do_predict=true", "data.max_predict_samples=9"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == 0
    saved = load_file(tmp_path / "out/checkpoints/checkpoint-1/model.safetensors")
    assert sum("shared" in name or "embed_tokens" in name for name in saved) == 1
    assert len((tmp_path / "out/predictions/RTE.tsv").read_text().splitlines()) == 10


@pytest.mark.parametrize(("named", "read_too"), [(["data.labels=[no, yes]"], False), ([], True)])
def test_of_files_of_ones_own_those_are_read_that_are_used(
    neobert: Run, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], named: list[str], read_too: bool
) -> None:
    """Where neither task_name nor data.labels names the classes, the training file does."""
    (tmp_path / "some.csv").write_text("text,label\na,no\nb,yes\n")
    files = [f"data.{part}_file={tmp_path / name}" for part, name in
             (("train", "none.csv"), ("validation", "gone.csv"), ("test", "some.csv"))]  # fmt: skip
    settings = ["do_train=false", "do_eval=false", f"model.name_or_path={tiny_bert}", "model.allow_random_weights=true",
                "data.max_length=32", "trainer.use_cpu=true", *files, *named]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path / "out") == (2 if read_too else 0)
    captured = capsys.readouterr()
    if read_too:
        assert "none.csv: cannot be read" in captured.err
    else:
        assert "own files (own files): 2 test examples\n" in captured.out


def test_without_a_head_there_is_nothing_to_look_at(
    neobert: Run, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["task_name=rte", "do_train=false", "data.generated=32", "data.max_length=32",
                f"model.name_or_path={tiny_bert}"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 2
    assert "has no head for this task (not in it: bert.pooler.dense.bias" in capsys.readouterr().err


def test_a_training_without_evaluations_ends_with_its_loss(neobert: Run, tmp_path: Path) -> None:
    assert neobert("glue", *SHORT, "task_name=mnli", "do_eval=false", "do_predict=true", "--output-dir", tmp_path) == 0
    result = read(tmp_path / "result.json")
    assert (result["metric"], result["step"], result["steps"]) == ("loss", 16, 16)
    assert not list(tmp_path.glob("eval_results*"))
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"}
    losses = {entry["step"]: entry["loss"] for entry in entries(tmp_path)}
    assert list(losses) == [1, 3, 6, 9, 12, 15, 16], "the last step is none of logging_steps"
    assert result["score"] == losses[16]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["do_train=false", "do_eval=false"], "one of do_train, do_eval and do_predict must be true"),
        (["do_train=false"], "do_train: false needs a model"),
        (["do_eval=false", "trainer.early_stopping_patience=3"], "trainer.early_stopping_patience needs evaluations"),
    ],
)
def test_what_leaves_nothing_to_do_is_refused(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    assert neobert("glue", *SHORT, "task_name=rte", *settings, "--output-dir", tmp_path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("warmup", [[], ["scheduler.warmup_steps=5"]])
def test_a_training_of_a_single_step_takes_it(neobert: Run, tiny_bert: Path, tmp_path: Path, warmup: list[str]) -> None:
    settings = ["task_name=rte", "data.generated=16", f"model.name_or_path={tiny_bert}", "data.max_length=32",
                "trainer.max_steps=1", "data.max_eval_samples=9", "trainer.use_cpu=true", *warmup]  # fmt: skip
    assert neobert("glue", *settings, "optimizer.lr=1e-3", "--output-dir", tmp_path) == 0
    name = "bert.encoder.layer.0.output.dense.weight"
    before = load_file(tiny_bert / "model.safetensors")[name]
    after = load_file(tmp_path / "checkpoints/checkpoint-1/model.safetensors")[name]
    assert (after - before).abs().max() == pytest.approx(1e-3, rel=0.01), "Adam's first step is as long as the rate"
