"""Own files give the examples that they hold, whatever their format, and a mistake is named with its file and line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas
import pytest

from neobert.config import ConfigError
from neobert.data.examples import Columns
from tests.neobert.data.own.reading import read, write


def test_every_format_reads_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": 'He said "no",\tthen left', "label": "b"}, {"text": "naïve", "label": "a"}]
    objects = [json.dumps(row) for row in rows]
    files = [
        write(tmp_path / "a.csv", "text,label", '"He said ""no"",\tthen left",b', "naïve,a"),
        write(tmp_path / "a.tsv", "text\tlabel", '"He said ""no"",\tthen left"\tb', "naïve\ta"),
        write(tmp_path / "a.jsonl", *objects),
        write(tmp_path / "lines.json", *objects),
        write(tmp_path / "array.json", json.dumps(rows, indent=1)),
        write(tmp_path / "data.json", json.dumps({"version": "1.0", "data": rows}, indent=1)),
        tmp_path / "a.parquet",
    ]
    pandas.DataFrame(rows).to_parquet(files[-1])
    for path in files:
        splits = read(path)
        assert list(splits.train) == [(('He said "no",\tthen left',), 1), (("naïve",), 0)], path
        assert splits.task.labels == ("a", "b")
        assert splits.source == "own files"


@pytest.mark.parametrize(
    ("name", "contents", "digest"),
    [
        (
            "a.csv",
            b'text,label\n"one\r\ntwo",yes\n"three\rfour",no\n"say ""x""",yes\nplain,no\n',
            "238feee94aca6b5a8076a6d7d37b69ec167d286f962dcac854d3934a3faf9ea8",
        ),
        (
            "b.jsonl",
            b'{"sentence1": "a\\r\\nb", "sentence2": "c", "label": 1}\r\n'
            b'{"sentence1": "d", "sentence2": "e", "label": 10}\r\n'
            b'{"sentence1": "f", "sentence2": "g", "label": 9}\r\n',
            "520b3427a3f3328ecb0d7b96b37d550ced5f029555583a4545d09af797279173",
        ),
        (
            "c.tsv",
            b'text\tlabel\r\nsay "no\t0.5\r\nyes\t2\r\n',
            "b5790ef9e8cb7280f859a857836b083e331d01534dacebe771ef247bccf51444",
        ),
    ],
)
def test_examples_are_those_that_earlier_versions_have_read(
    tmp_path: Path, name: str, contents: bytes, digest: str
) -> None:
    """So that trainings which are under way go on: these digests are of the version without data.text_columns."""
    (tmp_path / name).write_bytes(contents)
    assert read(tmp_path / name).summary()["digest"] == digest


def test_a_task_with_two_dev_sets_has_one_in_own_files(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "a.csv", "premise,hypothesis,label", "a,b,neutral"), task="mnli")
    assert set(splits.dev) == {""}
    assert splits.task.scored == ("accuracy",)


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        (["text", "one", "two"], []),
        (["text,label", "one,", "two,"], []),
        (["text,label", "one,-1", "two,-1"], []),
        (["text,label", "one,-1.0", "two,-1"], []),
        (["text,label", "one,yes", "two,no"], [1, 0]),
    ],
)
def test_a_test_file_has_labels_in_all_rows_or_in_none(tmp_path: Path, lines: list[str], labels: list[float]) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    splits = read(train, test=write(tmp_path / "t.csv", *lines))
    assert (splits.tests["test"].texts, splits.tests["test"].labels) == ([("one",), ("two",)], labels)


@pytest.mark.parametrize("missing", ["", "-1"])
def test_a_test_file_with_labels_in_some_rows_names_one_without(tmp_path: Path, missing: str) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    test = write(tmp_path / "t.csv", "text,label", "one,yes", f"two,{missing}", "three,no")
    with pytest.raises(ConfigError, match=r"t.csv:3: the label is missing, and other rows have one"):
        read(train, test=test)


def test_minus_one_is_a_class_where_the_training_file_has_it(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,-1", "t,0", "t,1")
    test = write(tmp_path / "t.csv", "text,label", "one,-1", "two,-1")
    assert read(train, test=test).tests["test"].labels == [0, 0]


def test_an_unknown_label_in_a_test_file_is_named(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    test = write(tmp_path / "t.csv", "text,label", "one,yess")
    with pytest.raises(
        ConfigError, match=r"t.csv:2: the label is 'yess', .* classes no, yes; did you mean 'yes'\? \(da"
    ):
        read(train, test=test)


def test_ids_come_from_the_test_file_alone_in_its_order(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    test = write(tmp_path / "t.jsonl", '{"key": 7, "text": "one"}', '{"key": "b", "text": "two"}')
    splits = read(train, test=test, id_column="key", text_columns=["text"])
    assert splits.tests["test"].ids == ["7", "b"]
    assert splits.tests["test"].first(1).ids == ["7"]
    assert splits.train.ids == []
    assert splits.columns == Columns(("text",), "label", "key", {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "", "text": "b"}', "t.jsonl:2: the id in key is missing"),
        ('{"key": null, "text": "b"}', "t.jsonl:2: key is null, expected text or a number"),
        (r'{"key": "x\ty", "text": "b"}', r"t.jsonl:2: the id in key is 'x\\ty': it holds a tab or a line break"),
    ],
)
def test_an_id_that_cannot_come_back_is_named(tmp_path: Path, line: str, message: str) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    test = write(tmp_path / "t.jsonl", '{"key": "1", "text": "a"}', line)
    with pytest.raises(ConfigError, match=message):
        read(train, test=test, id_column="key")


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["text,label", "t,x", "t,y,z"], r"a.csv:3: expected 2 columns \(text, label\), found 3"),
        ("a.csv", ["text,label", '"t,x'], r"a.csv:2: is malformed: unexpected end of data"),
        ("a.csv", ["text,label"], "a.csv: holds no examples"),
        ("a.csv", ["text,label", "t,x", "t,x"], r"a.csv:2: every label of the file is 'x'; training needs two classes"),
        ("a.jsonl", ['{"text": "t", "label": 1}', '{"text": "t" "label": 2}'], r"a.jsonl:2: is not JSON: .*column 14"),
        ("a.jsonl", ['{"text": "t", "label": 1}', "[1]"], r"a.jsonl:2: expected an object, found \[1\]"),
        (
            "a.jsonl",
            ['{"text": null, "label": 1}', '{"text": "t", "label": 2}'],
            r"a.jsonl:1: text is null, expected text",
        ),
        (
            "a.jsonl",
            ['{"text": NaN, "label": 1}', '{"text": "t", "label": 2}'],
            r"a.jsonl:1: text is NaN, expected text",
        ),
        (
            "a.jsonl",
            [r'{"text": "\ud83d", "label": 1}', '{"text": "t", "label": 2}'],
            r"a.jsonl:1: text holds half a char",
        ),
        ("a.jsonl", ['{"text": "t", "label": %s}' % ("9" * 5000)], r"a.jsonl:1: holds a number of thousands of digits"),
        ("a.json", ["[" * 100_000], r"a.json: is nested too deeply"),
        ("a.csv", ["text,label,text", "t,x,u"], r"a.csv:1: two columns are named 'text'; give each a name of its own"),
        ("a.jsonl", ['{"text": "t", "label": 1}', '{"label": 0}'], r"a.jsonl:2: has no text; it holds label"),
        (
            "a.txt",
            ["t"],
            r"a.txt: ends in .txt; expected one of .csv, .tsv, .json, .jsonl, .parquet. Its rows need col",
        ),
        ("a.csv.gz", ["t"], r"a.csv.gz: ends in .gz; expected .*. Unpack it first"),
        ("a.xlsx", ["t"], r"a.xlsx: ends in .xlsx; expected .*. Save the sheet as CSV"),
        ("a.parquet", ["t"], r"a.parquet: is damaged, or not what its name says: "),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / name, *lines))


@pytest.mark.parametrize("name", ["no.csv", "no.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read: No such file or directory"):
        read(tmp_path / name)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ConfigError, match=rf"No such file or directory \({tmp_path}/{name} is a link to {tmp_path}/els"
    ):
        read(tmp_path / name)


def test_empty_texts_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are what pandas writes for texts that are missing."""
    path = write(tmp_path / "a.csv", "text,label", "one,0", ",1", "two,1", '" ",0')
    with caplog.at_level(logging.WARNING):
        splits = read(path)
    assert splits.train.texts == [("one",), ("",), ("two",), (" ",)]
    assert f"{path}: 2 of 4 examples have an empty text (the first: {path}:3)" in caplog.text
