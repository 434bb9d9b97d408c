"""Two runs side by side, as values and as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from neobert.config import ConfigError
from slurm.compare import compare_runs
from slurm.results import FORMATS, Table
from slurm.rundir import RunDir
from slurm.state import RunState, State, TrialState

Recipe = Callable[..., subprocess.CompletedProcess[str]]


def trial(
    seed: int, score: float | None, task: str = "rte", stage: str = "glue", metric: str = "accuracy", **metrics: float
) -> TrialState:
    result = {} if score is None else {"score": score, "metric": metric, "metrics": {metric: score, **metrics}}
    state = State.FAILED if score is None else State.DONE
    return TrialState(f"{stage}{task}{seed}", stage, {"task_name": task, "seed": seed}, state, result=result)


def run(name: str, *trials: TrialState) -> RunState:
    return RunState(RunDir(Path(name).resolve()), trials)


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


RTE = ([0.60, 0.62, 0.58, 0.61, 0.60], [0.63, 0.66, 0.60, 0.62, 0.65])
COLA = ([0.40, 0.45, 0.41], [0.43, 0.44, 0.41])
A = run("a", *(trial(i, s) for i, s in enumerate(RTE[0])), *(trial(i, s, "cola") for i, s in enumerate(COLA[0])))
B = run("b", *(trial(i, s) for i, s in enumerate(RTE[1])), *(trial(i, s, "cola") for i, s in enumerate(COLA[1])))


def test_a_point_has_the_statistics_of_its_pairs() -> None:
    row = rows(compare_runs(A, B).table)[0]
    differences = [b - a for a, b in zip(*RTE, strict=True)]
    low, high = stats.ttest_rel(RTE[1], RTE[0]).confidence_interval(0.95)
    assert (row["task_name"], row["metric"], row["pairs"]) == ("rte", "accuracy", 5)
    assert (row["mean_a"], row["mean_b"]) == (statistics.fmean(RTE[0]), statistics.fmean(RTE[1]))
    assert row["difference"] == pytest.approx(statistics.fmean(differences))
    assert row["ci95"] == pytest.approx((high - low) / 2)
    assert (row["wins"], row["ties"], row["losses"]) == (5, 0, 0)
    assert row["p"] == 0.0625


def test_the_last_row_takes_the_pairs_of_all_points_together() -> None:
    found = compare_runs(A, B)
    point, last = rows(found.table)[1:]
    assert (point["wins"], point["ties"], point["losses"]) == (1, 1, 1)
    assert (last["task_name"], last["pairs"]) == ("all", 8)
    assert (last["wins"], last["ties"], last["losses"]) == (6, 1, 1)
    # The one loss is as small as the smallest win: of 64 patterns with more wins, all wins and these two are as far.
    assert last["p"] == 3 / 64
    middle = statistics.fmean([statistics.fmean(b) - statistics.fmean(a) for a, b in (RTE, COLA)])
    assert f"the mean of the points' differences is {middle:.4f}" in "\n".join(found.notes)


def test_the_smallest_p_is_told() -> None:
    notes = "\n".join(compare_runs(A, B).notes)
    assert "no smaller than 0.5000 with 2, 0.0625 with 5, 0.0156 with 7: a large p does not mean" in notes


def test_swapping_the_runs_negates() -> None:
    for there, back in zip(rows(compare_runs(A, B).table), rows(compare_runs(B, A).table), strict=True):
        assert there["difference"] == -back["difference"]
        assert (there["ci95"], there["p"]) == (back["ci95"], back["p"])
        assert (there["wins"], there["mean_a"]) == (back["losses"], back["mean_b"])


def test_a_run_does_not_differ_from_itself() -> None:
    found = compare_runs(A, A)
    assert {(row["difference"], row["wins"], row["losses"], row["p"]) for row in rows(found.table)} == {(0, 0, 0, 1)}
    assert "smaller" not in "\n".join(found.notes)


def test_what_is_not_paired_is_counted_and_told() -> None:
    a = run("a", trial(1, 0.5), trial(2, None), trial(3, 0.6), trial(4, 0.7))
    b = run("b", trial(1, 0.6), trial(2, 0.6), trial(3, None), trial(5, None))
    found = compare_runs(a, b)
    assert rows(found.table)[0]["pairs"] == 1
    assert "not paired of A: 1 failed, 1 not done in B, 1 not in B" in found.notes
    assert "not paired of B: 1 not done in A, 2 failed" in found.notes


def test_no_pair_that_is_done_is_an_error_that_says_why() -> None:
    message = r"no pair of trials is done in both runs \(not paired of A: 1 not done in B; not paired of B: 1 failed\)"
    with pytest.raises(ConfigError, match=message):
        compare_runs(run("a", trial(1, 0.5)), run("b", trial(1, None)))


def test_a_result_without_a_score_is_not_paired_and_told() -> None:
    broken = TrialState("x", "glue", {"task_name": "rte", "seed": 2}, State.DONE,
                        result={"score": None, "metric": "accuracy", "metrics": {}})  # fmt: skip
    found = compare_runs(run("a", trial(1, 0.5), broken), run("b", trial(1, 0.6), trial(2, 0.7)))
    assert rows(found.table)[0]["pairs"] == 1
    assert "not paired of A: 1 without score" in found.notes
    assert "not paired of B: 1 without score in A" in found.notes


def test_a_score_that_is_no_number_is_shown_and_never_left_out() -> None:
    found = compare_runs(A, run("b", *B.trials[:4], trial(4, math.nan), *B.trials[5:]))
    first, second, last = rows(found.table)
    assert first["pairs"] == 5
    assert all(math.isnan(row[name]) for row in (first, last) for name in ("mean_b", "difference", "ci95", "p"))
    assert second["p"] == 1


def test_of_a_loss_less_wins() -> None:
    a, b = (run(name, trial(1, score, metric="loss")) for name, score in (("a", 2.0), ("b", 1.5)))
    (row,) = rows(compare_runs(a, b).table)
    assert (row["difference"], row["wins"], row["losses"]) == (-0.5, 1, 0)


def test_points_of_which_more_and_less_is_better_are_not_taken_together() -> None:
    def both(name: str, scores: tuple[float, float]) -> RunState:
        return run(name, trial(1, scores[0], stage="pretrain", metric="loss"), trial(1, scores[1]))

    found = compare_runs(both("a", (2.0, 0.5)), both("b", (1.0, 0.6)))
    assert [(row["stage"], row["metric"]) for row in rows(found.table)] == [("pretrain", "loss"), ("glue", "accuracy")]
    assert any("no row for all points" in note for note in found.notes)


def test_different_metrics_are_an_error_that_names_them() -> None:
    a, b = run("a", trial(1, 0.5, f1=0.4)), run("b", trial(1, 0.6, metric="f1"))
    message = "stage glue, task_name=rte seed=1: A is scored by accuracy, B by f1; --metric compares by .*: f1"
    with pytest.raises(ConfigError, match=message):
        compare_runs(a, b)
    (row,) = rows(compare_runs(a, b, "f1").table)
    assert (row["metric"], row["mean_a"], row["mean_b"]) == ("f1", 0.4, 0.6)


def test_a_metric_that_some_trials_lack_is_told_and_one_that_a_run_lacks_is_an_error() -> None:
    a, b = (run(name, trial(1, 0.5, f1=0.4), trial(2, 0.5)) for name in "ab")
    found = compare_runs(a, b, "f1")
    assert rows(found.table)[0]["pairs"] == 1
    assert "not paired of A: 1 without f1" in found.notes
    with pytest.raises(ConfigError, match="no trial of B has the metric 'f1'; known here: accuracy"):
        compare_runs(a, run("b", trial(1, 0.5)), "f1")


def test_every_format_keeps_or_shows_the_numbers() -> None:
    table = compare_runs(A, B).table
    data = list(csv.DictReader(io.StringIO(FORMATS["csv"](table))))
    assert float(data[0]["ci95"]) == json.loads(FORMATS["json"](table))[0]["ci95"] == rows(table)[0]["ci95"]
    assert "| all | accuracy | 8 |" in FORMATS["markdown"](table)
    assert r"& $\pm$0.0" in FORMATS["latex"](table)


# ------------------------------------------------------------------------------------------------------------ as a user


def score(run: Path, scores: Mapping[int, float]) -> None:
    """Writes results of its own into a run: a score for each seed."""
    for line in (run / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        path = run / "trials" / row["id"] / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"score": scores[row["point"]["seed"]]}))


@pytest.fixture
def two_runs(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> tuple[Path, Path]:
    """Runs of two recipes, four trials each, of which the second has better scores for its seed 2."""
    for name in ("first", "second"):
        done = run_recipe("submit", recipe, "--cluster", stand_in, "--wait", "--set", f"name={name}")
        assert done.returncode == 0, done.stderr
    (a,), (b,) = (list(work.glob(f"runs/{name}/2*")) for name in ("first", "second"))
    score(a, {1: 0.5, 2: 0.5})
    score(b, {1: 0.5, 2: 0.75})
    return a, b


def test_runs_are_compared_by_name_and_by_directory_in_every_format(
    run_recipe: Recipe, two_runs: tuple[Path, Path], work: Path
) -> None:
    done = run_recipe("results", "--compare", "first", two_runs[1])
    assert done.returncode == 0, done.stderr
    head, cola, _, everything = (line.split() for line in done.stdout.splitlines())
    assert head[:6] == ["task_name", "metric", "pairs", "mean_a", "mean_b", "difference"]
    assert cola[:6] == ["cola", "accuracy", "2", "0.5000", "0.6250", "0.1250"]
    assert everything == ["all", "accuracy", "4", "0.5000", "0.6250", "0.1250", "±0.2297", "2", "2", "0", "0.5000"]
    a, b = (path.relative_to(work) for path in two_runs)
    assert f"A is {a}, B is {b}; differences are B - A" in done.stderr
    for form, start in {"csv": "task_name,", "json": "[", "markdown": "| task_name", "latex": "\\begin"}.items():
        told = run_recipe("results", "--compare", "first", "second", "--format", form)
        assert told.stdout.startswith(start)
        assert told.stderr == done.stderr
    assert json.loads(run_recipe("results", "--compare", "first", "first", "--format", "json").stdout)[0]["p"] == 1


def test_mistakes_are_one_message(run_recipe: Recipe, two_runs: tuple[Path, Path]) -> None:
    def refused(*arguments: object) -> str:
        done = run_recipe("results", *arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "neither RUN nor --trials goes with it" in refused("first", "--compare", "first", "second")
    assert "neither RUN nor --trials goes with it" in refused("--trials", "--compare", "first", "second")
    assert "there is no run of 'third'" in refused("--compare", "first", "third")
    assert "no trial of A has the metric 'f1'" in refused("--compare", "first", "second", "--metric", "f1")
    for path in two_runs[1].glob("trials/*"):
        shutil.rmtree(path)
    assert "no pair of trials is done in both runs" in refused("--compare", "first", "second")


def test_pairs_of_one_point_that_are_scored_by_different_metrics_have_no_mean() -> None:
    a, b = (run(name, trial(1, 0.5), trial(2, 0.6, metric="f1", accuracy=0.7)) for name in "ab")
    with pytest.raises(ConfigError, match="some pairs are scored by accuracy and others by f1, which have no mean"):
        compare_runs(a, b)
    assert rows(compare_runs(a, b, "accuracy").table)[0]["pairs"] == 2
