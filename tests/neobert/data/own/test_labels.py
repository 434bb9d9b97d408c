"""Labels are classes or numbers as they certainly are; where they could be either, or mistakes, a key decides."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas
import pytest

from neobert.config import ConfigError
from neobert.data.own.labels import Head
from tests.neobert.data.own.reading import read, write


def labelled(path: Path, *labels: str) -> Path:
    return write(path, "text,label", *(f"text {n},{label}" for n, label in enumerate(labels)))


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
    splits = read(labelled(tmp_path / "a.csv", *labels))
    assert splits.task.labels == names
    assert splits.train.labels == numbers
    assert splits.task.metrics == (("accuracy",) if names else ("pearson", "spearmanr"))


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["1_0", "1_1"], ("1_0", "1_1")), (["1 ", "1", " 0"], ("0", "1")), (["v1.5", "v2"], ("v1.5", "v2"))],
)
def test_only_a_fraction_makes_a_regression(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    assert read(labelled(tmp_path / "a.csv", *labels)).task.labels == names


def test_whole_numbers_with_a_decimal_point_are_an_error_that_names_the_key(tmp_path: Path) -> None:
    """Pandas writes a column of whole numbers like this once it had a gap."""
    path = tmp_path / "a.csv"
    frame = pandas.DataFrame({"text": ["a", "b", "c", "d"], "label": [2, None, 0, 1]}).dropna()
    frame.to_csv(path, index=False)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: the labels are whole numbers with a decimal point (0.0, 1.0, 2.0). Set data.problem: classification "
        "if each number is a class, or regression if the numbers are amounts"
    )
    classes = read(path, problem="classification")
    assert (classes.task.labels, classes.train.labels) == (("0", "1", "2"), [2, 0, 1])
    numbers = read(path, problem="regression")
    assert (numbers.task.labels, numbers.train.labels) == ((), [2.0, 0.0, 1.0])


@pytest.mark.parametrize("labels", [["1.0", "2.0"], ["1e0", "2"], ["1.", "2"]])
def test_a_whole_number_is_written_in_many_ways(tmp_path: Path, labels: list[str]) -> None:
    objects = [json.dumps({"text": "t", "label": float(label)}) for label in labels]
    for path in (labelled(tmp_path / "a.csv", *labels), write(tmp_path / "a.jsonl", *objects)):
        with pytest.raises(ConfigError, match=r"Set data.problem: classification"):
            read(path)


def test_whole_numbers_can_be_a_regression(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path / "a.csv", "5", "1", "3"), problem="regression")
    assert (splits.task.is_regression, splits.train.labels) == (True, [5.0, 1.0, 3.0])
    with pytest.raises(ConfigError, match=r"a.csv:3: the label is 'good', expected a number"):
        read(labelled(tmp_path / "a.csv", "5", "good"), problem="regression")


def test_fractions_can_be_classes(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path / "a.csv", "0.5", "1.0", "1.5"), problem="classification")
    assert splits.task.labels == ("0.5", "1", "1.5")


def test_a_class_is_the_same_with_a_decimal_point_in_another_file(tmp_path: Path) -> None:
    train, dev = labelled(tmp_path / "a.csv", "0", "1"), labelled(tmp_path / "b.csv", "1.0", "0.0")
    assert read(train, dev).dev[""].labels == [1, 0]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_true_and_false_are_classes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [True, False]})
    frame.to_json(path, orient="records", lines=True) if ending == "jsonl" else frame.to_parquet(path)
    splits = read(path)
    assert (splits.task.labels, splits.train.labels) == (("false", "true"), [1, 0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0", "", "1"], "a.csv:3: the label is missing"),
        (["0.5", " ", "1.5"], "a.csv:3: the label is missing"),
        (["0.5", "nan"], "a.csv:3: the label is 'nan', which is no number; list it in data.labels if"),
        (["0", "-Infinity"], "a.csv:3: the label is '-Infinity', which is no number"),
        (["0.5", "N/A"], "a.csv:3: the label is 'N/A', where other labels are numbers with a decimal point"),
    ],
)
def test_a_label_that_is_missing_or_odd_does_not_make_another_task(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(labelled(tmp_path / "a.csv", *lines))


# -- classes --------------------------------------------------------------------------------------------------------


def test_data_labels_fix_the_order_of_the_classes(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path / "a.csv", "yes", "no"), labels=["yes", "no", "perhaps"])
    assert (splits.task.labels, splits.train.labels) == (("yes", "no", "perhaps"), [0, 1])


def test_more_classes_than_data_labels_are_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a.csv:4: the label is 'perhaps', which is none of the classes yes, no \(da"
    ):
        read(labelled(tmp_path / "a.csv", "yes", "no", "perhaps"), labels=["yes", "no"])


def test_a_class_that_only_the_validation_file_has_is_named_with_file_and_line(tmp_path: Path) -> None:
    train, dev = labelled(tmp_path / "a.csv", "yes", "no"), labelled(tmp_path / "b.csv", "yes", "noo")
    with pytest.raises(ConfigError, match=r"b.csv:3: the label is 'noo', .* classes no, yes; did you mean 'no'\?"):
        read(train, dev)


def test_a_typing_mistake_in_one_training_label_makes_no_class(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.csv", *["positive", "negative"] * 10, "postive")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}:22: the label is 'postive' (1 in the file), which looks like a mistake for 'positive' (10). Correct "
        "it, or list all classes in data.labels if these are two"
    )
    assert len(read(path, labels=["positive", "negative", "postive"]).task.labels) == 3


@pytest.mark.parametrize("other", ["Positive", "posi tive", "POSITIVE"])
def test_labels_that_differ_in_case_or_blanks_alone_are_no_two_classes(tmp_path: Path, other: str) -> None:
    path = labelled(tmp_path / "a.csv", "positive", "negative", other, other, "positive", "positive")
    with pytest.raises(ConfigError, match=rf"a.csv:4: the label is '{other}' \(2 in the file\), .* 'positive' \(3\)"):
        read(path)


@pytest.mark.parametrize("rare", ["class_3", "3", "neutral"])
def test_a_class_with_a_single_example_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rare: str
) -> None:
    names = [rare[:-1] + "1", rare[:-1] + "2"] if rare[-1] == "3" else ["yes", "no"]
    with caplog.at_level(logging.WARNING):
        assert len(read(labelled(tmp_path / "a.csv", *names * 10, rare)).task.labels) == 3
    assert f"classes with a single training example: {rare!r} ({tmp_path}/a.csv:22). " in caplog.text
    assert "data.labels" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(labelled(tmp_path / "a.csv", *names * 10, rare), labels=[*names, rare])
    assert caplog.text == "", "the key has decided"


def test_classes_with_a_single_example_are_warned_of_in_small_files_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read(labelled(tmp_path / "a.csv", "good", "bad", "good", "odd"))
    assert f"a single training example: 'bad' ({tmp_path}/a.csv:3), 'odd' ({tmp_path}/a.csv:5). Cor" in caplog.text
    assert "regression" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(labelled(tmp_path / "a.csv", *map(str, range(60))))
    assert "a.csv:6), .... Correct" in caplog.text
    assert "in data.labels; data.problem: regression if they are amounts" in caplog.text


def test_a_typing_mistake_that_is_made_twice_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["positive", "negative"] * 12
    with caplog.at_level(logging.WARNING):
        read(labelled(tmp_path / "a.csv", *names, "postive", "postive", "class 1", "class 1"))
    assert f"labels that look like others: 'postive' ({tmp_path}/a.csv:26) like 'positive'. Correct" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(labelled(tmp_path / "a.csv", *names, *["postive"] * 4))
        read(labelled(tmp_path / "a.csv", *["class 1"] * 30, *["class 2"] * 2))
    assert caplog.text == "", "these may well be classes"


@pytest.mark.parametrize(
    ("usual", "other"),
    [("pos", "\uff50\uff4f\uff53"), ("pos", "pos\u200b"), ("1", "01"), ("1", "+1"), ("1", "true"), ("True", "1")],
)
def test_other_spellings_of_a_label_are_no_two_classes(tmp_path: Path, usual: str, other: str) -> None:
    path = labelled(tmp_path / "a.csv", *[usual, "neg"] * 3, other, other)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert f"a.csv:8: the label is {other!r} (2 in the file), which looks like a mistake for {usual!r} (3). " in str(
        caught.value
    )
    assert len(read(path, labels=[usual, "neg", other]).task.labels) == 3


def test_spellings_that_look_the_same_are_told_apart(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.csv", *["caf\u00e9", "the"] * 3, "cafe\u0301")
    with pytest.raises(ConfigError, match=r"the label is 'cafe\\u0301' \(1 in .* for 'caf\\xe9' \(3\)"):
        read(path)


def test_a_label_that_programs_write_for_a_missing_one_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = labelled(tmp_path / "a.csv", *["yes", "no", "NA"] * 2)
    with caplog.at_level(logging.WARNING):
        assert read(path).task.labels == ("NA", "no", "yes")
    assert f"labels that may stand for a missing one: 'NA' ({path}:4). Correct the labels" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(path, labels=["yes", "no", "NA"])
        read(labelled(tmp_path / "b.csv", *["none", "some"] * 2))
    assert caplog.text == ""


def test_a_class_that_the_dev_set_lacks_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, dev = labelled(tmp_path / "a.csv", "a", "b", "c"), labelled(tmp_path / "b.csv", "a", "b")
    with caplog.at_level(logging.WARNING):
        read(train, dev)
    assert f"{dev} has no example of c, so that no score tells about these classes. Correct the labels" in caplog.text
    assert "data.labels" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(train, dev, labels=["a", "b", "c"])
    assert caplog.text == ""


def test_a_class_of_data_labels_that_no_training_example_has_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = labelled(tmp_path / "a.csv", "yes", "no")
    with caplog.at_level(logging.WARNING):
        read(path, labels=["yes", "no", "nno"])
    assert f"{path} has no example of nno, so that nothing teaches the model these classes (data.lab" in caplog.text


# -- the trained model -------------------------------------------------------------------------------------------------


def test_without_a_training_file_the_model_names_the_classes(tmp_path: Path) -> None:
    test = labelled(tmp_path / "t.csv", "no", "yes")
    splits = read(None, None, test, head=Head(2, ("yes", "no")))
    assert (splits.task.labels, splits.tests["test"].labels) == (("yes", "no"), [1, 0])
    numbered = read(None, None, write(tmp_path / "u.csv", "text", "t"), head=Head(3))
    assert numbered.task.labels == ("0", "1", "2")


def test_a_model_with_one_output_is_a_regression(tmp_path: Path) -> None:
    test = labelled(tmp_path / "t.csv", "1", "2")
    assert read(None, None, test, head=Head(1)).tests["test"].labels == [1.0, 2.0]
    with pytest.raises(ConfigError, match=r"data.problem: is classification, but the model computes a single number"):
        read(None, None, test, head=Head(1), problem="classification")


def test_without_a_training_file_and_a_model_the_classes_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.labels: is required: no training file tells which classes there are"):
        read(None, None, labelled(tmp_path / "t.csv", "1", "2"))


# -- numbers in place of GLUE's classes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "columns", "meant"),
    [
        ("rte", "sentence1,sentence2", "0 is entailment, 1 is not_entailment"),
        ("qnli", "question,sentence", "0 is entailment, 1 is not_entailment"),
        ("mnli", "premise,hypothesis", "0 is entailment, 1 is neutral, 2 is contradiction"),
    ],
)
def test_a_number_as_label_is_told_what_it_probably_means_and_which_key_decides(
    tmp_path: Path, task: str, columns: str, meant: str
) -> None:
    path = write(tmp_path / "a.csv", f"{columns},label", "a b,c d,1", "e f,g h,0")
    with pytest.raises(ConfigError) as caught:
        read(path, task=task)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: the label is '1', which is none of {task}'s: ")
    names = ", ".join(part.split(" is ")[1] for part in meant.split(", "))
    assert f"`datasets` exported, {meant}: then add data.labels: [{names}]" in message
    order = list(reversed(names.split(", ")))
    splits = read(path, task=task, labels=order)
    assert splits.task.labels == tuple(names.split(", ")), "the task's own order stays"
    assert splits.train.labels == [splits.task.labels.index(order[1]), splits.task.labels.index(order[0])]


def test_names_may_stand_beside_numbers_that_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sentence1,sentence2,label", "a b,c d,1.0", "e f,g h,entailment")
    assert read(path, task="rte", labels=["entailment", "not_entailment"]).train.labels == [1, 0]


def test_a_hidden_label_in_training_data_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sentence,label", "a b,-1")
    with pytest.raises(
        ConfigError, match=r"a.csv:2: the label is '-1', .*. It hides the label, as in GLUE's test sets"
    ):
        read(path, task="sst2")
