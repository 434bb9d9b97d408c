"""JSON and parquet hold rows as other programs export them; what holds none is refused with what to write instead."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from neobert.config import ConfigError
from tests.neobert.data.own.reading import read, write

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


@pytest.mark.parametrize("orient", ["records", "table"])
def test_json_of_pandas_with_rows_is_read(tmp_path: Path, orient: str) -> None:
    path = tmp_path / "a.json"
    pandas.DataFrame(ROWS).to_json(path, orient=orient)  # type: ignore[call-overload]
    assert read(path).train.texts == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (
            {"text": {"0": "a"}, "label": {"0": "x"}},
            r"none of its values is a list of objects. Write .*orient='records'",
        ),
        ({"text": ["a", "b"], "label": ["x", "y"]}, r"none of its values is a list of objects. Write a list of obj"),
        ({"train": ROWS, "test": ROWS}, r"is one object with several lists of objects \(train, test\): leave the one"),
    ],
)
def test_an_object_that_is_no_list_of_rows_is_refused_with_what_to_write(
    tmp_path: Path, whole: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "a.json", json.dumps(whole)))


def test_a_row_below_data_is_named_by_its_place(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": None, "label": "x"}]
    with pytest.raises(ConfigError, match=r"a.json: data, item 3: text is null, expected text"):
        read(write(tmp_path / "a.json", json.dumps({"data": rows})))


@pytest.mark.parametrize(
    "row", [{"text": "t", "meta": {"a": 1}, "tags": []}, {"tags": [], "text": "t", "note": None, "n": 3}]
)
def test_what_nobody_uses_may_hold_anything(tmp_path: Path, row: dict[str, object]) -> None:
    path = write(tmp_path / "a.jsonl", *(json.dumps(row | {"label": label}) for label in (0, 1)))
    assert read(path).train.texts == [("t",), ("t",)]


@pytest.mark.parametrize("label", ["NaN", "Infinity", "[]"])
def test_a_json_label_is_text_or_a_finite_number(tmp_path: Path, label: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "t", "label": 0.5}', f'{{"text": "t", "label": {label}}}')
    with pytest.raises(ConfigError, match=r"a.jsonl:2: label is .*, expected text or a number"):
        read(path)


def test_numbers_that_datasets_has_named_are_read_as_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"),
         "label": datasets.ClassLabel(names=["entailment", "not_entailment"]), "idx": datasets.Value("int32")}
    )  # fmt: skip
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0], "idx": [0, 1]}
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    for task in ("rte", None):
        splits = read(path, task=task)
        assert splits.task.labels == ("entailment", "not_entailment")
        assert list(splits.train) == [(("a", "c"), 1), (("b", "d"), 0)]


def test_hidden_labels_of_a_parquet_file_are_none(tmp_path: Path) -> None:
    for name, labels in (("train", [0, 1]), ("test", [-1, -1])):
        pandas.DataFrame({"text": ["a", "b"], "label": labels}).to_parquet(tmp_path / f"{name}.parquet")
    splits = read(tmp_path / "train.parquet", test=tmp_path / "test.parquet")
    assert (splits.train.labels, splits.tests["test"].labels) == ([0, 1], [])


def test_a_row_of_parquet_is_named_by_its_number(tmp_path: Path) -> None:
    pandas.DataFrame({"text": ["a", None, "c"], "label": [0, 1, 0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a.parquet, row 1 \(from 0\): text is null, expected text"):
        read(tmp_path / "a.parquet")


def test_a_name_that_an_object_has_twice_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 0}', '{"text": "b", "text": "c", "label": 1}')
    with pytest.raises(ConfigError, match=r"a.jsonl:2: an object has the name 'text' twice"):
        read(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_that_is_cut_short_is_named_with_the_line_where_it_ends(tmp_path: Path, name: str) -> None:
    text = json.dumps([{"text": "a", "label": 0}, {"text": "b", "label": 1}], indent=1)
    with pytest.raises(ConfigError, match=rf"{name}: is not JSON: Expecting value \(line 9, column 1\)"):
        read(write(tmp_path / name, *text.splitlines()[:7], '  "label": '))


def test_one_object_that_is_cut_short_is_not_read_as_lines(tmp_path: Path) -> None:
    text = json.dumps({"data": [{"text": "a", "label": 0}, {"text": "b", "label": 1}]}, indent=1)
    with pytest.raises(ConfigError, match=r"a.json: is not JSON: Expecting ',' delimiter \(line 11, column 1\)"):
        read(write(tmp_path / "a.json", *text.splitlines()[:10]))


def test_texts_as_bytes_and_labels_as_decimals_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pandas.DataFrame({"text": ["süß".encode(), b"b"], "label": [Decimal("1.50"), Decimal("2.00")]})
    frame.to_parquet(path)
    splits = read(path)
    assert (splits.train.texts, splits.train.labels) == ([("süß",), ("b",)], [1.5, 2.0])


def test_bytes_that_are_no_text_may_be_the_text_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"text": ["süß".encode("latin-1"), b"b\xfc"], "name": ["x", "y"], "label": [0, 1]}).to_parquet(
        path
    )
    with pytest.raises(ConfigError, match=r"cannot tell which columns are text.*\n  text   bytes, such as"):
        read(path)
    with pytest.raises(ConfigError, match=r"the column text holds bytes that are not UTF-8 text"):
        read(path, text_columns=["text"])
