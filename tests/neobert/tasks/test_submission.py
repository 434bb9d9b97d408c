"""Predictions of trials become the file that the benchmark's server takes, or a message says what is missing in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS
from neobert.data.submission import read_checked

Run = Callable[..., int]


def made(directory: Path, name: str, score: float = 0.5, said: int = 0) -> Path:
    """A trial as `neobert glue` leaves it, which says the same of every example."""
    task = TASKS[name]
    (directory / "predictions").mkdir(parents=True)
    result = {"task": "glue", "task_name": name, "metric": "+".join(task.scored), "score": score}
    (directory / "result.json").write_text(json.dumps(result))
    for test in task.tests:
        rows = "".join(f"{index}\t{task.said(said)}\n" for index in range(test.rows))
        (directory / "predictions" / f"{test.name}.tsv").write_text(f"index\tprediction\n{rows}")
    return directory


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task; QQP's 390,965 lines take a moment."""
    root = tmp_path_factory.mktemp("trials")
    return {name: made(root / name, name, score=(number + 1) / 10) for number, name in enumerate(TASKS)}


def submit(neobert: Run, trials: list[Path], out: Path, *more: str) -> int:
    return neobert("submission", f"trials=[{', '.join(map(str, trials))}]", *more, "--output-dir", out)


def test_all_nine_tasks_and_ax_are_in_the_zip(neobert: Run, trials: dict[str, Path], tmp_path: Path) -> None:
    better = made(tmp_path / "better", "rte", score=0.95, said=1)
    assert submit(neobert, [*trials.values(), better], tmp_path / "out") == 0
    with zipfile.ZipFile(tmp_path / "out/submission.zip") as archive:
        names = archive.namelist()
        rte = archive.read("RTE.tsv").decode().splitlines()
        diagnostic = archive.read("AX.tsv").decode().splitlines()
    assert sorted(names) == sorted(
        ["AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv", "QQP.tsv", "RTE.tsv", "SST-2.tsv",
         "STS-B.tsv", "WNLI.tsv"]
    )  # fmt: skip
    assert rte[:2] == ["index\tprediction", "0\tnot_entailment"], "of the better of two trials"
    assert len(rte) == 3001
    assert diagnostic[1104] == "1103\tentailment"
    result = json.loads((tmp_path / "out/result.json").read_text())
    scores = [(number + 1) / 10 for number in range(9)]
    assert result["metric"] == "glue"
    assert result["score"] == pytest.approx((sum(scores) - 0.8 + 0.95) / 9)
    assert result["trials"]["rte"] == str(better)


def test_a_task_that_is_missing_is_named_unless_it_may_be(
    neobert: Run, trials: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [trials[name] for name in ("cola", "rte")]
    assert submit(neobert, some, tmp_path / "out") == 2
    assert "none is of sst2, mrpc, stsb, qqp, mnli, qnli, wnli: the benchmark takes all nine" in capsys.readouterr().err
    assert submit(neobert, some, tmp_path / "out", "partial=true") == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert (result["metric"], result["score"]) == ("mean of 2 tasks", pytest.approx(0.45))


def scored_by(trial: Path, metric: str, score: float, accuracy: float) -> Path:
    result = json.loads((trial / "result.json").read_text())
    found = {"metric": metric, "score": score, "metrics": {"accuracy": accuracy, "f1": score}}
    (trial / "result.json").write_text(json.dumps(result | found))
    return trial


def test_trials_with_a_metric_of_their_own_are_chosen_by_it_and_counted_by_the_benchmarks(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [
        scored_by(made(tmp_path / name, "rte"), "loss", loss, accuracy)
        for name, loss, accuracy in (("a", 0.9, 0.8), ("b", 0.2, 0.7))
    ]
    assert submit(neobert, trials, tmp_path / "out", "partial=true") == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert (result["trials"]["rte"], result["score"]) == (str(trials[1]), 0.7)
    scored_by(trials[0], "f1", 0.9, 0.8)
    assert submit(neobert, trials, tmp_path / "other", "partial=true") == 2
    told = capsys.readouterr().err
    assert "trials on rte: the trials are scored by different metrics, so that none is the best" in told
    assert f": f1 (as {trials[0]}), loss (as {trials[1]}). Name one trial" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\n7\t", "\n8\t"), "CoLA.tsv:9: has the index '8', expected 7"),
        (lambda text: text.replace("\n7\t0", "\n7\tno"), "CoLA.tsv:9: says 'no', which is no answer to CoLA"),
        (lambda text: text + "1063\t0\n", "holds 1064 predictions, but the test set of CoLA has 1063 rows"),
        (lambda text: text.replace("index", "id", 1), "CoLA.tsv:1: is no file of predictions"),
        (lambda text: text[:-1], "CoLA.tsv:1: is no file of predictions: expected the header 'index\\tprediction' and"),
        (None, "CoLA.tsv: does not exist: the trial must run with do_predict: true"),
    ],
)
def test_what_the_server_would_refuse_is_refused_here(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str] | None, message: str
) -> None:
    trial = made(tmp_path / "cola", "cola")
    path = trial / "predictions/CoLA.tsv"
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    assert submit(neobert, [trial], tmp_path / "out", "partial=true") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/submission.zip").exists()


def test_ax_that_the_data_lacked_is_told_from_a_trial_that_did_not_predict(tmp_path: Path) -> None:
    trial = made(tmp_path / "mnli", "mnli")
    (trial / "predictions/AX.tsv").unlink()
    assert predictions_fault(trial) == (
        f"{trial}/predictions/AX.tsv: does not exist: the trial predicted, but its data.dir had no "
        "diagnostic/diagnostic.tsv or AX/AX.tsv or AX/test.tsv. Put that there and predict once more, by a trial with "
        "do_train: false whose model.pretrained_checkpoint_dir is this one; partial: true leaves AX out"
    )
    for test in ("MNLI-m", "MNLI-mm"):
        (trial / f"predictions/{test}.tsv").unlink()
    assert predictions_fault(trial).endswith("AX.tsv: does not exist: the trial must run with do_predict: true")


def predictions_fault(trial: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_checked(trial / "predictions/AX.tsv", TASKS["mnli"], TASKS["mnli"].tests[2])
    return str(caught.value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            {"task_name": "rte", "score": 1, "metric": "accuracy", "data": "own files"},
            "result.json: is of a trial on files of your own, which says nothing of GLUE's test sets: leave it out",
        ),
        (None, "has no result.json: it is not done"),
        ({"task": "pretrain", "score": 1}, "is no result of `neobert glue` on one of GLUE's tasks"),
        ({"task_name": "rte", "score": 1, "metric": "loss"}, "has no score on the dev set, but loss"),
    ],
)
def test_what_is_no_trial_on_glue_is_named(
    neobert: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: dict[str, object] | None, message: str
) -> None:
    (tmp_path / "trial").mkdir()
    if result is not None:
        (tmp_path / "trial/result.json").write_text(json.dumps(result))
    assert submit(neobert, [tmp_path / "trial"], tmp_path / "out", "partial=true") == 2
    assert message in capsys.readouterr().err
