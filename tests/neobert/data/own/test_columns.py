"""Texts, labels and ids come from columns that are named or certain; everything else is an error that lists them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas
import pytest

from neobert.config import ConfigError, parse_yaml
from neobert.data.examples import Splits
from tests.neobert.data.own.reading import read, write


def table(path: Path, **columns: list[object]) -> Path:
    pandas.DataFrame(columns).to_csv(path, index=False)
    return path


def test_the_index_that_pandas_writes_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_csv(path)
    assert path.read_text().startswith(",text,label\n")
    splits = read(path)
    assert splits.train.texts == [("a",), ("b",)]
    assert splits.columns is not None
    assert splits.columns.ignored == {"": "unnamed"}
    pandas.read_csv(path).to_csv(path)  # once more: `Unnamed: 0`, beside a new one without a name
    again = read(path)
    assert again.train.texts == [("a",), ("b",)]
    assert again.columns is not None
    assert again.columns.ignored == {"": "unnamed", "Unnamed: 0": "unnamed"}


def test_names_of_row_labels_without_a_header_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",text,label", "row one,a,0", "row two,b,1")
    assert read(path).train.texts == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("id", [7, 8], "numbers"),
        ("score", ["0.5", "-1e3"], "numbers"),
        ("score", ["0.5", "NA"], "numbers"),
        ("guid", ["train-1", "train-2"], "ids"),
        ("doc_id", ["a17", "a18"], "ids"),
        ("pairID", ["31193n", "101457e"], "ids"),
        ("hash", ["d41d8cd98f00b204e9800998ecf8427e"] * 2, "ids"),
        ("day", ["2024-01-31", "2024-02-01"], "dates"),
        ("time", ["2024-01-31 10:00:00", "2024-02-01T10:00:00Z"], "dates"),
        ("train", [True, False], "true and false"),
        ("note", [None, None], "empty"),
    ],
)
def test_what_is_clearly_no_text_is_ignored(tmp_path: Path, name: str, values: list[object], kind: str) -> None:
    splits = read(table(tmp_path / "a.csv", **{name: values}, text=["one", "two"], label=[0, 1]))
    assert splits.train.texts == [("one",), ("two",)]
    assert splits.columns is not None
    assert splits.columns.ignored == {name: kind}


@pytest.mark.parametrize(
    ("first", "second"),
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
     ("text_a", "text_b"), ("text1", "text2"), ("sentence_A", "sentence_B"), ("query", "passage")],
)  # fmt: skip
def test_the_usual_pairs_are_known_in_their_order(tmp_path: Path, first: str, second: str) -> None:
    path = table(tmp_path / "a.csv", **{second: ["c", "d"], "idx": [0, 1], "label": [0, 1], first: ["a", "b"]})
    splits = read(path)
    assert splits.train.texts == [("a", "c"), ("b", "d")]
    assert splits.task.sentences == (first, second)


def test_labels_stands_for_label(tmp_path: Path) -> None:
    splits = read(table(tmp_path / "a.csv", text=["a", "b"], labels=["x", "y"]))
    assert splits.columns is not None
    assert (splits.columns.label, splits.task.labels) == ("labels", ("x", "y"))


def refused(path: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_two_columns_that_may_be_the_text_are_an_error_that_lists_the_columns_and_the_lines_to_add(
    tmp_path: Path,
) -> None:
    """A description of the label beside the text: a model would learn from that alone."""
    row = {"label_desc": "news_game", "sentence": "The match was won by those who lost.", "keywords": ""}
    path = write(tmp_path / "a.jsonl", *(json.dumps({"label": str(n), **row}) for n in (100, 116)))
    assert refused(path) == (
        f"{path}: cannot tell which columns are text. The columns are:\n"
        '  label       numbers, such as "100"\n'
        '  label_desc  text, such as "news_game"\n'
        '  sentence    text, such as "The match was won by those who lost."\n'
        "  keywords    empty, such as nothing\n"
        "Say which under `data`, with the names that are right here:\n"
        "    text_columns: [sentence]\n"
        "    label_column: label"
    )
    splits = read(path, text_columns=["sentence"])
    assert splits.train.texts == [(row["sentence"],)] * 2
    assert splits.columns is not None
    assert list(splits.columns.ignored) == ["label_desc", "keywords"]


@pytest.mark.parametrize("header", [["review", "sentiment"], ["Class Index", "Title: long", "no"]])
def test_without_a_label_column_the_lines_to_add_work(tmp_path: Path, header: list[str]) -> None:
    rows = [[f"{name} is a text of words {n}" for name in header[:-1]] + [f"{n % 2}"] for n in range(4)]
    path = tmp_path / "a.csv"
    pandas.DataFrame(rows, columns=header).to_csv(path, index=False)
    message = refused(path)
    assert "cannot tell which column holds the labels. The columns are:" in message
    lines = "\n".join(line.strip() for line in message.splitlines()[-2:])
    assert read(path, **parse_yaml(lines, "").data).task.labels == ("0", "1")


def test_label_beside_labels_is_not_certain(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", text=["a", "b"], label=[0, 1], labels=["x", "y"])
    assert "cannot tell which column holds the labels" in refused(path)
    assert read(path, label_column="labels").task.labels == ("x", "y")


@pytest.mark.parametrize("text", [["a", "few", "words"], {"en": "a few words"}, [{"text": "a few words"}]])
def test_words_in_lists_may_be_the_text_rather_than_what_is_beside_them(tmp_path: Path, text: object) -> None:
    rows = [{"tokens": text, "label": n % 2, "label_text": f"class {n}"} for n in range(4)]
    path = write(tmp_path / "a.jsonl", *map(json.dumps, rows))
    assert "  tokens      lists or objects, such as" in refused(path)
    assert read(path, text_columns=["label_text"]).train.texts[0] == ("class 0",)


def test_lists_of_numbers_are_no_text(tmp_path: Path) -> None:
    rows = [{"vector": [0.5, n], "at": {"page": n}, "label": n % 2, "text": f"text {n}"} for n in range(4)]
    assert read(write(tmp_path / "a.jsonl", *map(json.dumps, rows))).train.texts[0] == ("text 0",)


def test_a_description_of_the_label_in_place_of_the_text_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text is a column of numbers, so that the names of the labels are the only text."""
    columns: dict[str, list[object]] = {"zip": [*range(8)], "name": ["off", "on"] * 4, "label": [0, 1] * 4}
    path = table(tmp_path / "a.csv", **columns)
    with caplog.at_level(logging.WARNING):
        read(path)
    assert f"{path}: the text in the column name is the same for all examples of a label, as if it" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(path, text_columns=["name"])
        read(table(path, **{**columns, "name": ["on", "on", *columns["name"][2:]]}))
    assert caplog.text == ""


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ","), ("a.tsv", ";")])
def test_fields_that_something_else_separates_are_told(tmp_path: Path, name: str, separator: str) -> None:
    path = write(tmp_path / name, separator.join(["text", "label"]), separator.join(["good", "1"]))
    assert f"{path}:1: names a single column" in refused(path)
    assert f"Its fields seem to be separated by {separator!r}: a .csv has commas, and a .tsv has tabs" in refused(path)


def test_what_a_test_file_alone_lacks_are_names_of_texts_and_not_of_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", key=["a1", "b1"], text=["one two", "three four"])
    with pytest.raises(ConfigError) as caught:
        read(None, None, path, labels=["no", "yes"])
    assert f"{path}: cannot tell which columns are text. The columns are:" in str(caught.value)
    assert str(caught.value).endswith("with the names that are right here:\n    text_columns: [text]")


def test_a_known_pair_beside_a_third_text_is_not_certain(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", premise=["a b", "c d"], hypothesis=["e", "f"], genre=["x", "y"], label=[0, 1])
    assert "genre       text, such as" in refused(path)


def test_a_known_pair_of_which_one_is_no_text_is_not_certain(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", question=["how many?", "how much?"], answer=[12, 13], label=[0, 1])
    assert "answer    numbers, such as" in refused(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("n", [1, 2], "the column n holds numbers alone. Name a column of text in data.text_columns"),
        ("Unnamed: 0", ["a", "b"], 'the column "Unnamed: 0" has no name, so it holds row numbers'),
        ("empty", [None, None], "the column empty is empty"),
    ],
)
def test_numbers_and_unnamed_columns_are_never_text_whatever_is_named(
    tmp_path: Path, column: str, values: list[object], message: str
) -> None:
    path = table(tmp_path / "a.csv", **{column: values}, text=["a", "b"], label=[0, 1])
    assert message in refused(path, text_columns=[column])


def test_a_text_that_is_a_number_stays_a_text_among_others(tmp_path: Path) -> None:
    assert read(table(tmp_path / "a.csv", text=["5", "five"], label=[0, 1])).train.texts == [("5",), ("five",)]


def test_a_column_that_is_named_and_missing_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", text=["a", "b"], label=[0, 1])
    assert refused(path, text_columns=["sentence"]) == f"{path}: has no column sentence; its columns are text, label"
    assert refused(path, label_column="gold") == f"{path}: has no column gold; its columns are text, label"


@pytest.mark.parametrize("options", [{"text_columns": ["label"]}, {"id_column": "label", "text_columns": ["text"]}])
def test_a_column_has_one_use(tmp_path: Path, options: dict[str, object]) -> None:
    path = table(tmp_path / "a.csv", text=["a", "b"], label=["x", "y"])
    assert refused(path, test=path, **options) == (
        f"{path}: the column label cannot be two of text, label and id. Name others under `data`"
    )


def test_all_files_need_the_columns_of_the_training_file(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", text=["a", "b"], label=[0, 1])
    dev = table(tmp_path / "dev.csv", sentence=["a", "b"], label=[0, 1])
    assert refused(train, validation=dev) == f"{dev}: has no column text; its columns are sentence, label"
    test = table(tmp_path / "test.csv", text=["a", "b"])
    assert refused(train, test=test, id_column="id") == f"{test}: has no column id; its columns are text"
    more = table(tmp_path / "more.csv", title=["x y", "z"], text=["c", "d"], label=[0, 1])
    assert read(train, validation=more).dev[""].texts == [("c",), ("d",)]


def test_without_the_training_file_what_all_files_have_decides(tmp_path: Path) -> None:
    dev = table(tmp_path / "dev.csv", id=[7, 8], text=["fine", "poor"], label=["b", "a"])
    test = table(tmp_path / "test.csv", text=["fine"], note=["none"])
    splits = read(None, dev, test, labels=["a", "b"])
    assert splits.dev[""].texts == [("fine",), ("poor",)]
    assert splits.tests["test"].texts == [("fine",)]


def test_a_test_file_alone_needs_no_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "test.csv", text=["fine", "poor"])
    splits = read(None, None, path, labels=["a", "b"])
    assert splits.tests["test"].texts == [("fine",), ("poor",)]
    assert splits.columns is not None
    assert splits.columns.label is None


# -- with task_name ---------------------------------------------------------------------------------------------------


def read_as(task: str, path: Path, **options: object) -> Splits:
    return read(path, task=task, **options)  # type: ignore[arg-type]


def test_a_glue_task_takes_its_own_columns_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "label,idx,question,sentence", "not_entailment,0,q?,s.", "entailment,1,q?,s.")
    assert list(read_as("qnli", path).train) == [(("q?", "s."), 1), (("q?", "s."), 0)]


@pytest.mark.parametrize(
    ("task", "header", "texts"),
    [
        ("rte", "sentence2,sentence1,genre,label", ("b", "a")),
        ("qqp", "sentence2,sentence1,genre,label", ("b", "a")),
        ("rte", "premise,label,hypothesis", ("p", "h")),
        ("sst2", "review,label", ("r",)),
        ("sst2", "idx,sentence,genre,label", ("s",)),
    ],
)
def test_a_glue_task_takes_other_columns_where_they_are_certain(
    tmp_path: Path, task: str, header: str, texts: tuple[str, ...]
) -> None:
    cells = {"sentence1": "b", "sentence2": "a", "premise": "p", "hypothesis": "h", "review": "r", "sentence": "s",
             "idx": "0", "genre": "fiction", "label": {"rte": "entailment"}.get(task, "1")}  # fmt: skip
    row = ",".join(cells[name] for name in header.split(","))
    assert read_as(task, write(tmp_path / "a.csv", header, row)).train.texts == [texts]


@pytest.mark.parametrize(
    ("task", "header", "message"),
    [
        ("sst2", "sentence1,sentence2,label", "cannot tell which columns are text (sst2 needs 1). The columns are:"),
        ("rte", "text,label,x,y", "cannot tell which columns are text (rte needs 2). The columns are:"),
        ("qqp", "premise,label,claim", "cannot tell which columns are text (qqp needs 2). The columns are:"),
        ("rte", "text,label", "cannot tell which columns are text (rte needs 2). The columns are:"),
    ],
)
def test_a_glue_task_does_not_guess_its_columns(tmp_path: Path, task: str, header: str, message: str) -> None:
    row = ",".join("1" if name == "label" else f"{name} text" for name in header.split(","))
    assert message in refused(write(tmp_path / "a.csv", header, row), task=task)


def test_columns_can_be_named_for_a_glue_task(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "claim,premise,gold", "c,p,1", "d,q,0")
    splits = read_as("qqp", path, text_columns=["premise", "claim"], label_column="gold")
    assert list(splits.train) == [(("p", "c"), 1), (("q", "d"), 0)]
