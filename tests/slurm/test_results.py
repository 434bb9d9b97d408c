"""Tables of results: over seeds, with what is missing, in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm.results import FORMATS, notes_on, results_table, trials_table
from slurm.rundir import RunDir
from slurm.show import results_view
from slurm.state import RunState, State, TrialState


def trial(point: dict[str, Any], score: float | None, state: State = State.DONE, stage: str = "glue") -> TrialState:
    result = {} if score is None else {
        "score": score, "metric": "accuracy", "baseline": 0.5, "seconds": 2.0,
        "metrics": {"accuracy": score, "f1": score / 2},
    }  # fmt: skip
    return TrialState("abc", stage, point, state, result=result)


def run(*trials: TrialState) -> RunState:
    return RunState(RunDir(Path("/run")), trials)


SWEEP = run(
    trial({"task_name": "rte", "optimizer.lr": 1e-5, "seed": 1}, 0.6),
    trial({"task_name": "rte", "optimizer.lr": 1e-5, "seed": 2}, 0.7),
    trial({"task_name": "rte", "optimizer.lr": 1e-5, "seed": 3}, 0.9),
    trial({"task_name": "rte", "optimizer.lr": 3e-5, "seed": 1}, 0.5),
    trial({"task_name": "rte", "optimizer.lr": 3e-5, "seed": 2}, None, State.FAILED),
    trial({"task_name": "rte", "optimizer.lr": 3e-5, "seed": 3}, None, State.RUNNING),
    trial({"task_name": "cola", "optimizer.lr": 1e-5, "seed": 1}, None, State.PENDING),
)


def test_seeds_are_summed_up() -> None:
    table = results_table(SWEEP)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["done"] == "3/3"
    assert row["mean"] == pytest.approx(statistics.fmean([0.6, 0.7, 0.9]))
    assert row["sd"] == pytest.approx(statistics.stdev([0.6, 0.7, 0.9]))
    assert row["median"] == 0.7
    assert row["best"] == 0.9
    assert row["ci95"] == pytest.approx(4.302652729749462 * row["sd"] / 3**0.5), "Student's t with 2 degrees of freedom"
    assert row["baseline"] == 0.5
    assert row["missing"] is None


def test_what_is_missing_is_shown_and_never_averaged_over() -> None:
    table = results_table(SWEEP)
    assert [row[table.columns.index("ci95")] for row in table.rows[1:]] == [None, None], "one seed tells no spread"
    second, third = (dict(zip(table.columns, row, strict=True)) for row in table.rows[1:])
    assert (second["done"], second["mean"], second["sd"], second["missing"]) == (
        "1/3",
        0.5,
        None,
        "1 failed, 1 running",
    )
    assert (third["task_name"], third["done"], third["mean"], third["missing"]) == ("cola", "0/1", None, "1 pending")


def test_a_result_without_a_score_or_the_metric_is_missing_and_told() -> None:
    broken = replace(trial({"seed": 2}, 0.5), result={"score": None, "metric": "accuracy", "metrics": {"f1": 0.5}})
    table = results_table(run(trial({"seed": 1}, 0.7), broken, trial({"seed": 3}, None, State.FAILED)))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["done"], row["mean"], row["missing"]) == ("1/3", 0.7, "1 without score, 1 failed")
    table = results_table(run(trial({"seed": 1}, 0.7), broken), "accuracy")
    assert dict(zip(table.columns, table.rows[0], strict=True))["missing"] == "1 without accuracy"


def test_the_best_of_a_loss_is_the_smallest() -> None:
    losses = [replace(trial({"seed": seed}, 0.0), result={"score": float(seed), "metric": name, "metrics": {}})
              for name in ("loss", "loss_mm", "eval_loss", "perplexity") for seed in (1, 2)]  # fmt: skip
    for pair in zip(losses[::2], losses[1::2], strict=True):
        table = results_table(run(*pair))
        assert dict(zip(table.columns, table.rows[0], strict=True))["best"] == 1


def test_a_score_that_is_no_number_is_shown() -> None:
    table = results_table(run(trial({"seed": 1}, 0.5), trial({"seed": 2}, math.nan)))
    cells = dict(zip(table.columns, table.cells(table.rows[0]), strict=True))
    assert (cells["mean"], cells["ci95"], cells["best"]) == ("nan", "±nan", "nan")


def test_results_without_a_baseline_are_results_as_well() -> None:
    """As of trials that only look at a model, and read no training set."""
    looked = [trial({"seed": seed}, 0.6) for seed in (1, 2)]
    for one in looked:
        del one.result["baseline"]
    table = results_table(run(*looked))
    assert "baseline" not in table.columns
    assert dict(zip(table.columns, table.rows[0], strict=True))["mean"] == 0.6
    each = trials_table(run(*looked))
    assert [row[each.columns.index("baseline")] for row in each.rows] == [None, None]


def test_another_metric_can_be_asked_for() -> None:
    table = results_table(SWEEP, "f1")
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["metric"], row["median"]) == ("f1", 0.35)
    assert "baseline" not in table.columns, "the baseline is one of the score"


def test_an_unknown_metric_names_the_known_ones() -> None:
    from neobert.config import ConfigError

    with pytest.raises(ConfigError, match="no trial has the metric 'f2'; known here: accuracy, f1"):
        results_table(SWEEP, "f2")


def test_a_setting_that_is_null_is_a_point_of_its_own() -> None:
    table = results_table(run(trial({"head": None, "lr": 1}, 0.1), trial({"lr": 1}, 0.2), trial({"head": "x"}, 0.3)))
    assert results_view(table).columns[0].cells == ("null", "—", "x")
    assert [row.split(",")[0] for row in FORMATS["csv"](table).splitlines()] == ["head", "", "", "x"]
    assert [row["head"] for row in json.loads(FORMATS["json"](table))] == [None, None, "x"]
    assert [row.split()[1] for row in FORMATS["markdown"](table).splitlines()[2:]] == ["—", "—", "x"]


def test_stages_are_told_apart_where_there_are_several() -> None:
    assert "stage" not in results_table(SWEEP).columns
    two = run(trial({}, 0.1, stage="a"), trial({}, 0.2, stage="b"))
    assert [row[0] for row in results_table(two).rows] == ["a", "b"]


def test_trials_table_has_a_row_for_each_trial_with_all_metrics() -> None:
    table = trials_table(SWEEP)
    assert len(table.rows) == 7
    first = dict(zip(table.columns, table.rows[0], strict=True))
    assert (first["seed"], first["accuracy"], first["f1"], first["state"]) == (1, 0.6, 0.3, "done")


def test_csv_and_json_keep_every_digit() -> None:
    table = results_table(SWEEP)
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](table))))
    assert float(rows[0]["mean"]) == statistics.fmean([0.6, 0.7, 0.9])
    assert float(rows[1]["optimizer.lr"]) == 3e-5
    assert rows[2]["mean"] == ""
    data = json.loads(FORMATS["json"](table))
    assert data[0]["ci95"] == float(rows[0]["ci95"])
    assert data[0]["mean"] == statistics.fmean([0.6, 0.7, 0.9])
    assert data[2]["mean"] is None


def test_markdown_and_latex_escape_what_has_a_meaning_there() -> None:
    odd = run(trial({"a_b": "x|y&z 50% #1", "seed": 1}, 0.5), trial({"a_b": "x|y&z 50% #1", "seed": 2}, 0.5))
    markdown = FORMATS["markdown"](results_table(odd)).splitlines()
    assert markdown[0].startswith("| a_b | metric | done |")
    assert markdown[2].startswith(r"| x\|y&z 50% #1 | accuracy | 2/2 | 0.5000 | ±0 |")
    latex = FORMATS["latex"](results_table(odd))
    assert r"x|y\&z 50\% \#1 & accuracy & 2/2 & 0.5000 & $\pm$0" in latex
    assert r"a\_b & metric" in latex
    assert latex.startswith("\\begin{tabular}{")
    assert latex.count("&") - latex.count(r"\&") == 2 * (len(results_table(odd).columns) - 1)


# -- doubts ---------------------------------------------------------------------------------------------------------

WORSE = "no better than the majority class: accuracy is 0.5000, and 0.5000 without looking at a text"
RISEN = "the training loss has risen: from 0.7 to 55, where guessing has 0.69"


def doubtful(number: int, *warnings: str, metric: str = "accuracy", **point: Any) -> TrialState:
    one = replace(trial({"task_name": "rte", "seed": number, **point}, 0.5), id=f"id{number}")
    return replace(one, result={**one.result, "metric": metric, **({"warnings": list(warnings)} if warnings else {})})


def test_notes_count_trials_by_what_speaks_against_their_results() -> None:
    trials = [doubtful(1, WORSE), doubtful(2, WORSE.replace("0.5000", "0.4000"), RISEN), doubtful(3),
              trial({"seed": 4}, None, State.RUNNING)]  # fmt: skip
    assert notes_on(trials) == [
        "2 of 4 trials: no better than the majority class (id1, id2)",
        "1 of 4 trials: the training loss has risen (id2)",
    ]
    assert notes_on([doubtful(n, RISEN) for n in range(7)]) == [
        "7 of 7 trials: the training loss has risen (id0, id1, id2, id3, id4, ...)"
    ]
    assert notes_on(SWEEP.trials) == []
    odd = replace(doubtful(1), result={**doubtful(1).result, "warnings": "damaged"})
    assert notes_on([odd]) == []


def test_scores_by_different_metrics_have_no_mean() -> None:
    """As where some trials of a run are of a version that scored all of them by accuracy."""
    mixed = [doubtful(1), doubtful(2, metric="f1"), doubtful(3), doubtful(4, metric="f1", task_name="cola")]
    table = results_table(run(*mixed))
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (first["metric"], first["done"], first["mean"], first["missing"]) == (
        None, "0/3", None, "2 by accuracy, 1 by f1",
    )  # fmt: skip
    assert (second["metric"], second["done"], second["mean"]) == ("f1", "1/1", 0.5)
    told = "trials of one point are scored by accuracy and f1, which have no mean: --metric takes one for all"
    assert notes_on(mixed) == [told]
    row = dict(zip((table := results_table(run(*mixed), "f1")).columns, table.rows[0], strict=True))
    assert (row["metric"], row["done"], row["mean"]) == ("f1", "3/3", 0.25)


def test_the_best_of_a_test_loss_is_the_smallest() -> None:
    losses = [replace(trial({"seed": n}, 0.0), result={"score": n / 2, "metric": "test_loss", "metrics": {}})
              for n in (1, 2)]  # fmt: skip
    table = results_table(run(*losses))
    assert table.rows[0][table.columns.index("best")] == 0.5
