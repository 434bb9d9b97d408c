"""Fields of .csv and .tsv come out as they went in, whoever wrote the file; where a quote has two meanings, nobody
guesses."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas
import pytest

from neobert.config import ConfigError
from tests.neobert.data.own.reading import read, write

TEXTS = ['He said "no"', "a\tb", "plain", "one\ntwo", "a, b", "", 'say ""', "'quoted'"]


def frame(texts: list[str]) -> pandas.DataFrame:
    return pandas.DataFrame({"text": texts, "label": [number % 2 for number in range(len(texts))]})


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_what_pandas_writes_is_read_back(tmp_path: Path, ending: str, quoting: int) -> None:
    path = tmp_path / f"a{ending}"
    texts = [text for text in TEXTS if text]
    frame(texts).to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",", quoting=quoting)  # type: ignore[call-overload]
    assert [text for (text,) in read(path).train.texts] == texts


def test_quotes_that_only_pandas_needs_are_taken_off_a_tsv(tmp_path: Path) -> None:
    """Both readings have the same rows; but who writes literal text does not double its quotes."""
    path = tmp_path / "a.tsv"
    frame(['He said "no"', "plain"]).to_csv(path, index=False, sep="\t")
    assert path.read_text().splitlines()[1] == '"He said ""no"""\t0'
    assert read(path).train.texts == [('He said "no"',), ("plain",)]


@pytest.mark.parametrize("text", ['say "no', '"the witness", he said', '"begins', 'a "b" c'])
def test_quotes_in_a_tsv_that_enclose_no_field_are_text(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path / "a.tsv", "text\tlabel", f"{text}\tx", "yes\ty")).train.texts == [(text,), ("yes",)]


def test_a_whole_text_in_quotes_is_literal_where_another_text_shows_it(tmp_path: Path) -> None:
    """No csv writer leaves a quote in a field without quotes around it."""
    lines = ["text\tlabel", '"Hello."\tx', 'He said "no" again\ty']
    assert read(write(tmp_path / "a.tsv", *lines)).train.texts == [('"Hello."',), ('He said "no" again',)]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (['"Hello."\tx', "plain\ty"], 2),
        (["plain\ty", '"He said ""no"""\tx', 'say "no"\ty'], 3),
        (['"a\tx', 'b"\ty'], 2),
    ],
)
def test_quotes_that_can_be_read_in_two_ways_are_an_error_that_names_the_key(
    tmp_path: Path, rows: list[str], line: int
) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", *rows, "more\tx", "more\ty")
    with pytest.raises(ConfigError, match=rf'a.tsv:{line}: the quotes in "\S.* can be part .* data.quotes: none .*csv'):
        read(path)
    for quotes in ("csv", "none"):
        assert read(path, quotes=quotes).train.texts[-1] == ("more",)


def test_the_setting_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", '"Hello."\tx', "plain\ty")
    assert read(path, quotes="csv").train.texts[0] == ("Hello.",)
    assert read(path, quotes="none").train.texts[0] == ('"Hello."',)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_texts_may_be_longer_than_the_csv_module_allows(tmp_path: Path, ending: str) -> None:
    text = "word, " * 50_000
    path = tmp_path / f"a{ending}"
    frame([text, "short"]).to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    assert read(path).train.texts == [(text,), ("short",)]


@pytest.mark.parametrize("enclosed", [True, False])
def test_a_carriage_return_in_a_tsv_is_part_of_the_text(tmp_path: Path, enclosed: bool) -> None:
    text = '"one\rtwo"' if enclosed else "one\rtwo"
    path = write(tmp_path / "a.tsv", "text\tlabel", f"{text}\tx", "plain\ty")
    assert read(path).train.texts == [("one\rtwo",), ("plain",)]


@pytest.mark.parametrize("text", ["one\rtwo", '"one\rtwo"', '"one\r\ntwo"', '"one\ntwo"'])
def test_a_line_break_in_a_csv_is_read_as_a_newline(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.csv", "text,label", f"{text},x", "plain,y")
    assert read(path).train.texts == [("one\ntwo",), ("plain",)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("ending", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_lines_may_end_as_on_any_system(tmp_path: Path, ending: str, delimiter: str, end: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(end.join([f"text{delimiter}label", f"a{delimiter}x", "", f"b{delimiter}y", ""]).encode())
    assert list(read(path).train) == [(("a",), 0), (("b",), 1)]


def test_blank_lines_are_skipped_before_the_header_too(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.csv", "", "text,label", "t,x", "", "t,y")).train) == 2


def test_a_row_of_several_lines_is_named_by_its_last(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label", '"one', 'two",x', "t,y,z")
    with pytest.raises(ConfigError, match=r"a.csv:4: expected 2 columns"):
        read(path)
