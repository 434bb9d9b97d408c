"""Files of one's own follow run_glue's conventions, and a mistake is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.data.examples import Splits
from neobert.data.glue_tasks import TASKS
from neobert.data.own_files import read_own_files


def read(train: Path, validation: Path | None = None, **options: object) -> Splits:
    values = {"test": None, "task": None, "labels": None, "columns_of": train} | options
    return read_own_files(train, validation or train, **values)  # type: ignore[arg-type]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_every_format_reads_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": 'He said "no",\tthen left', "label": "b"}, {"text": "naïve", "label": "a"}]
    objects = [json.dumps(row) for row in rows]
    files = [
        write(tmp_path / "a.csv", "text,label", '"He said ""no"",\tthen left",b', "naïve,a"),
        write(tmp_path / "a.jsonl", *objects),
        write(tmp_path / "lines.json", *objects),
        write(tmp_path / "array.json", json.dumps(rows, indent=1)),
    ]
    for path in files:
        splits = read(path)
        assert list(splits.train) == [(('He said "no",\tthen left',), 1), (("naïve",), 0)], path
        assert splits.task.labels == ("a", "b")
        assert splits.source == "own files"


def test_quotes_mean_nothing_in_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", 'say "no\tx', "yes\ty")
    assert read(path).train.texts == [('say "no',), ("yes",)]


@pytest.mark.parametrize(
    ("header", "texts"),
    [("label,sentence2,idx,sentence1", ("s1", "s2")), ("idx,b,label,c", ("0", "s2")), ("label,a", ("s2",))],
)
def test_texts_are_sentence1_and_2_or_the_first_two_columns(tmp_path: Path, header: str, texts: tuple[str]) -> None:
    cells = {"label": "x", "sentence2": "s2", "idx": "0", "sentence1": "s1", "b": "s2", "c": "s1", "a": "s2"}
    row = ",".join(cells[name] for name in header.split(","))
    path = write(tmp_path / "a.csv", header, row, row.replace("x", "y"))
    assert read(path).train.texts[0] == texts


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["pos", "neg", "pos"], ("neg", "pos"), [1, 0, 1]),
        (["10", "9", "2"], ("2", "9", "10"), [2, 1, 0]),
        (["1.0", "2", "0.5"], (), [1.0, 2.0, 0.5]),
    ],
)
def test_labels_decide_between_classes_and_regression(
    tmp_path: Path, labels: list[str], names: tuple[str, ...], numbers: list[float]
) -> None:
    splits = read(write(tmp_path / "a.csv", "text,label", *(f"t,{label}" for label in labels)))
    assert splits.task.labels == names
    assert splits.train.labels == numbers
    assert splits.task.metrics == (("accuracy",) if names else ("pearson", "spearmanr"))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1_0", "1_1"], ("1_0", "1_1")),
        (["1 ", "1", " 0"], ("0", "1")),
        (["1e0", "2"], ()),
        (["v1.5", "v2"], ("v1.5", "v2")),
    ],
)
def test_only_a_decimal_point_or_an_exponent_makes_a_regression(
    tmp_path: Path, labels: list[str], names: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.csv", "text,label", *(f"t,{label}" for label in labels))
    assert read(path).task.labels == names


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["t,0", "t,", "t,1"], "a.csv:3: the label is missing"),
        (["t,0.5", "t, ", "t,1.5"], "a.csv:3: the label is missing"),
        (["t,0.5", "t,nan"], "a.csv:3: the label is 'nan', which is no number; list it in data.labels if"),
        (["t,0", "t,-Infinity"], "a.csv:3: the label is '-Infinity', which is no number"),
        (["t,0.5", "t,N/A"], "a.csv:3: the label is 'N/A', where other labels are numbers with a decimal point"),
    ],
)
def test_a_label_that_is_missing_or_odd_does_not_make_another_task(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "a.csv", "text,label", *lines))


@pytest.mark.parametrize("label", ["NaN", "Infinity", "null", "true", "[]"])
def test_a_json_label_is_text_or_a_finite_number(tmp_path: Path, label: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "t", "label": 0.5}', f'{{"text": "t", "label": {label}}}')
    with pytest.raises(ConfigError, match=r"a.jsonl:2: label is .*, expected text or a number"):
        read(path)


@pytest.mark.parametrize(
    "row", [{"text": "t", "meta": {"a": 1}, "tags": []}, {"tags": [], "sentence1": "t", "note": None, "n": 3}]
)
def test_what_nobody_uses_may_hold_anything(tmp_path: Path, row: dict[str, object]) -> None:
    path = write(tmp_path / "a.jsonl", *(json.dumps(row | {"label": label}) for label in (0, 1)))
    assert read(path).train.texts == [("t",), ("t",)]


def test_blank_lines_are_skipped_before_the_header_too(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.csv", "", "text,label", "t,x", "", "t,y")).train) == 2


def test_a_float_in_json_makes_a_regression_though_it_is_whole(tmp_path: Path) -> None:
    whole, floats = ['{"text": "t", "label": 1}', '{"text": "t", "label": 2}'], ['{"text": "t", "label": 1.0}']
    assert read(write(tmp_path / "a.jsonl", *whole)).task.labels == ("1", "2")
    assert read(write(tmp_path / "b.jsonl", *floats)).task.is_regression


def test_data_labels_fix_the_order_of_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    splits = read(path, labels=["yes", "no", "perhaps"])
    assert (splits.task.labels, splits.train.labels) == (("yes", "no", "perhaps"), [0, 1])


def test_more_classes_than_data_labels_are_named_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no", "t,perhaps")
    with pytest.raises(ConfigError) as caught:
        read(path, labels=["yes", "no"])
    assert str(caught.value) == f"{path}:4: the label is 'perhaps', which is not in data.labels: yes, no"


def test_a_class_that_only_the_validation_file_has_is_named_with_file_and_line(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    validation = write(tmp_path / "b.csv", "text,label", "t,yes", "t,perhaps")
    with pytest.raises(ConfigError, match=r"b.csv:3: the label is 'perhaps', which is none of own files's: no, yes"):
        read(train, validation)


def test_a_model_is_asked_about_the_columns_that_it_has_learned_from(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label", "good,b", '"bad,a')  # of which the first row alone is looked at
    dev = write(tmp_path / "dev.csv", "id,text,label", "7,fine,b")
    test = write(tmp_path / "test.csv", "id,text", "8,poor")
    found = read_own_files(None, dev, test, None, ["a", "b"], train)
    assert found.task.sentences == ("text",)
    assert (found.dev[""].texts, found.tests["test"].texts) == ([("fine",)], [("poor",)])
    dev = write(tmp_path / "dev.csv", "id,label", "7,b")
    with pytest.raises(ConfigError, match=rf"^{dev}:2: has no text; it holds id, label"):
        read_own_files(None, dev, None, None, ["a", "b"], train)


def test_without_the_training_file_the_columns_that_all_have_are_the_texts(tmp_path: Path) -> None:
    dev = write(tmp_path / "dev.csv", "id,text,label", "7,fine,b")
    test = write(tmp_path / "test.csv", "text,note", "poor,none")
    assert read_own_files(None, dev, test, None, ["a", "b"], tmp_path / "train.csv").task.sentences == ("text",)


def test_a_glue_task_takes_its_own_columns_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "label,idx,question,sentence", "not_entailment,0,q?,s.", "entailment,1,q?,s.")
    splits = read(path, task=TASKS["qnli"])
    assert list(splits.train) == [(("q?", "s."), 1), (("q?", "s."), 0)]


@pytest.mark.parametrize(
    ("task", "header", "texts"),
    [
        ("rte", "sentence2,sentence1,label", ("b", "a")),
        ("qqp", "premise,label,claim", ("p", "c")),
        ("sst2", "review,label", ("r",)),
        ("sst2", "idx,sentence,label", ("s",)),
    ],
)
def test_a_glue_task_takes_other_columns_where_there_is_no_doubt(
    tmp_path: Path, task: str, header: str, texts: tuple[str, ...]
) -> None:
    cells = {
        "sentence1": "b",
        "sentence2": "a",
        "premise": "p",
        "claim": "c",
        "review": "r",
        "sentence": "s",
        "idx": "0",
    }
    row = ",".join(cells.get(name, TASKS[task].labels[0]) for name in header.split(","))
    assert read(write(tmp_path / "a.csv", header, row), task=TASKS[task]).train.texts == [texts]


@pytest.mark.parametrize(
    ("task", "header", "message"),
    [
        ("sst2", "sentence1,sentence2,label", "expected the column sentence for sst2, found sentence1, sentence2"),
        ("sst2", "idx,text,label", "expected the column sentence for sst2, found idx, text"),
        ("rte", "text,label,x,y", "expected the columns sentence1 and sentence2 for rte, found text, x, y"),
        ("qqp", "label", "expected the columns question1 and question2 for qqp, found none of text"),
    ],
)
def test_a_glue_task_does_not_guess_its_columns(tmp_path: Path, task: str, header: str, message: str) -> None:
    row = ",".join("0" for _ in header.split(","))
    with pytest.raises(ConfigError, match=f"a.csv:2: {message}"):
        read(write(tmp_path / "a.csv", header, row), task=TASKS[task])


def test_files_of_ones_own_are_one_dev_set_for_a_task_that_has_two(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "a.csv", "premise,hypothesis,label", "a,b,neutral"), task=TASKS["mnli"])
    assert set(splits.dev) == {""}
    assert splits.task.scored == ("accuracy",)


@pytest.mark.parametrize("lines", [["text", "one", "two"], ["text,label", "one,-1", "two,"]])
def test_the_labels_of_a_test_file_are_not_read(tmp_path: Path, lines: list[str]) -> None:
    train = write(tmp_path / "a.csv", "text,label", "t,yes", "t,no")
    test = write(tmp_path / "t.csv", *lines)
    splits = read(train, test=test)
    (unlabelled,) = splits.tests.values()
    assert (unlabelled.texts, unlabelled.labels) == ([("one",), ("two",)], [])


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["text,label", "t,x", "t,y,z"], r"a.csv:3: expected 2 columns \(text, label\), found 3"),
        ("a.csv", ["text,label", '"t,x'], r"a.csv:2: is malformed: unexpected end of data"),
        ("a.csv", ["text,label"], "a.csv: holds no examples"),
        ("a.csv", ["text,kind", "t,x"], r"a.csv:2: has no label; it holds text, kind"),
        ("a.csv", ["label", "x"], r"a.csv:2: has no column of text"),
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
        ("a.txt", ["t"], r"a.txt: ends in .txt; expected one of .csv, .tsv, .json, .jsonl"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / name, *lines))


def test_a_row_of_several_lines_is_named_by_its_last(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label", '"one', 'two",x', "t,y,z")
    with pytest.raises(ConfigError, match=r"a.csv:4: expected 2 columns"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.csv: cannot be read: No such file or directory"):
        read(tmp_path / "no.csv")
