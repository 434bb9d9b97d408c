"""Predictions are read back as they were written, by csv and by pandas, whatever classes and ids are called."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from neobert.data.examples import Columns, Examples, Splits
from neobert.data.glue_tasks import TASKS, GlueTask
from neobert.training.evaluations import probabilities, write_predictions
from neobert.training.files import TrialFiles

OUTPUTS = np.array([[1.0, 3.0], [2.0, -1.0], [0.0, 0.0]], np.float32)


def written(directory: Path, task: GlueTask, test: Examples, outputs: np.ndarray, own: bool = True) -> Path:
    columns = Columns(("text",)) if own else None
    splits = Splits(task, "own files", Examples(), {}, {"test": test}, columns)
    write_predictions({"test": outputs}, splits, TrialFiles(directory))
    return directory / "predictions/test.tsv"


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t"))


def test_a_line_holds_id_class_probabilities_and_label(tmp_path: Path) -> None:
    task = GlueTask("own files", ("text",), ("no", "yes"), ("accuracy",))
    test = Examples([("a",), ("b",), ("c",)], [1, 1, 0], ["x1", "x2", "007"])
    header, *rows = read(written(tmp_path, task, test, OUTPUTS))
    assert header == ["index", "id", "prediction", "p(no)", "p(yes)", "label"]
    assert [row[:3] for row in rows] == [["0", "x1", "yes"], ["1", "x2", "no"], ["2", "007", "no"]]
    assert [row[-1] for row in rows] == ["yes", "yes", "no"]
    assert float(rows[0][4]) == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-5)
    assert all(float(row[3]) + float(row[4]) == pytest.approx(1, abs=1e-5) for row in rows)


def test_without_ids_and_labels_there_are_no_such_columns(tmp_path: Path) -> None:
    task = GlueTask("own files", ("text",), ("no", "yes"), ("accuracy",))
    header, first, *_ = read(written(tmp_path, task, Examples([("a",)] * 3), OUTPUTS))
    assert header == ["index", "prediction", "p(no)", "p(yes)"]
    assert first[:2] == ["0", "yes"]


@pytest.mark.parametrize("name", ['a\tb"c', "two\nlines", "cr\rhere", '"quoted"', "crlf\r\nthere", "comma, é", "'"])
def test_odd_names_are_read_back(tmp_path: Path, name: str) -> None:
    task = GlueTask("own files", ("text",), ("plain", name), ("accuracy",))
    path = written(tmp_path, task, Examples([("a",)] * 3, [1, 0, 1], [name, "2", "3"]), OUTPUTS)
    header, *rows = read(path)
    assert header == ["index", "id", "prediction", "p(plain)", f"p({name})", "label"]
    assert (rows[0][1], rows[0][2], rows[0][-1]) == (name, name, name)
    assert len(rows) == 3
    pandas = pytest.importorskip("pandas", reason="needs pandas, which `datasets` brings")
    table = pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert list(table.columns) == header
    assert table.to_numpy().tolist() == rows


def test_a_regression_is_a_number_without_probabilities(tmp_path: Path) -> None:
    numbers = GlueTask("own files", ("text",), (), ("pearson", "spearmanr"))
    outputs = np.array([[0.00012345678], [123456.78], [-2.0]], np.float32)
    header, *rows = read(written(tmp_path, numbers, Examples([("a",)] * 3, [1e-5, 1234567.25, 0.1]), outputs))
    assert header == ["index", "prediction", "label"]
    assert np.array_equal(np.array([float(row[1]) for row in rows], np.float32), outputs[:, 0])
    assert [row[2] for row in rows] == ["1e-05", "1234567.25", "0.1"]


def test_own_files_of_a_task_have_its_classes_names_and_the_benchmark_its_codes(tmp_path: Path) -> None:
    for own, expected in ((True, ["equivalent", "not_equivalent"]), (False, ["1", "0"])):
        header, *rows = read(written(tmp_path / str(own), TASKS["mrpc"], Examples([("a", "b")] * 3), OUTPUTS, own))
        assert [row[1] for row in rows[:2]] == expected
    assert header == ["index", "prediction"], "of a GLUE task, as the benchmark takes it"


def test_similarity_stays_within_the_limits_of_its_task(tmp_path: Path) -> None:
    _, *rows = read(written(tmp_path, TASKS["stsb"], Examples([("a", "b")] * 2), np.array([[5.3], [-0.2]], np.float32)))
    assert [row[1] for row in rows] == ["5.0", "0.0"]


def test_large_outputs_have_probabilities() -> None:
    found = probabilities(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]
