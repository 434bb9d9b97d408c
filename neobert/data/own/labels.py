"""Decides what the labels of own files are: the classes of a classification, or the numbers of a regression.

`data.labels` names the classes. Otherwise they are the labels of the training file, or without one the classes of the
trained model. Labels that could be either, and a class that looks like a typing mistake, are errors.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from neobert.config import ConfigError
from neobert.config.glue_data import GlueData
from neobert.data.examples import HIDDEN, at, label_number
from neobert.data.glue_tasks import GlueTask
from neobert.data.own.rows import Row, Table
from neobert.data.own.survey import NUMBER

log = logging.getLogger(__name__)

NAME = "own files"
PLENTY = 10
"""A class with so many examples shows that a class with a single one is an exception."""
OFTEN = 4
"""Another class that is so many times as frequent may be what a label was meant to be."""
NEAR = 0.8
"""Likeness of two spellings, of at most 1, from which one may be a mistake for the other."""
_MISSING = frozenset(("None", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null"))
"""How programs write a missing value."""
_CORRECT = "Correct the labels if these are mistakes, or list all classes in data.labels"


@dataclass(frozen=True)
class Head:
    """The output of a trained model: one score for each class, or a single number."""

    outputs: int
    classes: tuple[str, ...] = ()
    """Their names; none where the model does not name them."""

    @property
    def is_regression(self) -> bool:
        return self.outputs == 1


def task_of(data: GlueData, train: Table | None, column: str | None, head: Head | None) -> GlueTask:
    """The task that own files without `task_name` are; raises `ConfigError` where that is not certain."""
    if data.problem == "regression":
        return _regression()
    if data.labels is not None:
        return _classification(data.labels)
    if train is not None and column is not None:
        return _task_of_rows(train, column, data.problem == "classification")
    if head is None:
        raise ConfigError.at(("data", "labels"), "is required: no training file tells which classes there are")
    if head.is_regression and data.problem is not None:
        raise ConfigError.at(("data", "problem"), "is classification, but the model computes a single number")
    if head.is_regression:
        return _regression()
    if not head.classes:
        log.warning("the model does not name its %d classes: they are called by their numbers, from 0. data.labels "
                    "gives them names", head.outputs)  # fmt: skip
    return _classification(head.classes or [str(number) for number in range(head.outputs)])


def class_labels(task: GlueTask, data: GlueData, table: Table, column: str) -> list[float]:
    """The labels of all rows as numbers; raises `ConfigError` for a missing or unknown one."""
    numbers: dict[str, float] = {}
    labels = []
    for row in table.rows:
        label = _filled(row, column)
        if label not in numbers:
            numbers[label] = _number(label, task, data, row)
        labels.append(numbers[label])
    return labels


def labels_of_test(task: GlueTask, data: GlueData, table: Table, column: str | None) -> list[float]:
    """The same, of a test file; none where it has none, or hides them as the hub does."""
    if column is None or column not in table.columns:
        return []
    missing = [row for row in table.rows if _is_missing(row.label(column), task)]
    hidden = {row.label(column) for row in table.rows} <= set(HIDDEN)
    if len(missing) == len(table.rows) or (hidden and "-1" not in task.labels):
        return []
    if missing:
        raise at(missing[0].where, "the label is missing, and other rows have one: a test file needs labels in all "
                                   "rows, or in none")  # fmt: skip
    return class_labels(task, data, table, column)


def _is_missing(label: str, task: GlueTask) -> bool:
    """-1 may be a class, and is a number of a regression like any other."""
    return not label or (label in HIDDEN and not task.is_regression and "-1" not in task.labels)


def _filled(row: Row, column: str) -> str:
    label = row.label(column)
    if not label:
        raise at(row.where, "the label is missing")
    return label


def _number(label: str, task: GlueTask, data: GlueData, row: Row) -> float:
    if task.is_regression:
        return label_number(label, task, row.where)
    known = (*task.labels, *task.codes)
    if label not in known:
        label = _whole(label)
    if task.name != NAME:
        named = data.labels[int(label)] if data.labels and label in map(str, range(len(data.labels))) else label
        return label_number(named, task, row.where)
    if label in known:
        return task.labels.index(label)
    near = difflib.get_close_matches(label, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    message = f"the label is {label!r}, which is none of the classes {_some(task.labels)}{meant}"
    raise at(row.where, f"{message} (data.labels lists all classes)")


def _whole(label: str) -> str:
    """`1` for `1.0`: a column of numbers with a gap is written so."""
    if not NUMBER.fullmatch(label) or not float(label).is_integer():
        return label
    return str(int(float(label)))


# -- what the training file tells ---------------------------------------------------------------------------------


def _task_of_rows(train: Table, column: str, is_classification: bool) -> GlueTask:
    rows: dict[str, list[Row]] = {}
    for row in train.rows:
        rows.setdefault(_filled(row, column), []).append(row)
    _refuse_infinite(rows)
    are_numbers = all(map(NUMBER.fullmatch, rows))
    if any(_is_decimal(label) for label in rows) and not is_classification:
        if not are_numbers:
            raise _odd_label(rows)
        if all(float(label).is_integer() for label in rows):
            raise _whole_numbers(train, rows)
        return _regression()
    rows = _merged(rows)
    labels = sorted(rows, key=int if all(map(_is_integer, rows)) else None)
    if len(labels) < 2:
        raise at(train.rows[0].where, f"every label of the file is {labels[0]!r}; training needs two classes at least")
    _check_classes(rows)
    return _classification(labels)


def _merged(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Labels that are decimals are known by `_whole` of them."""
    merged: dict[str, list[Row]] = {}
    for label, some in rows.items():
        merged.setdefault(_whole(label) if _is_decimal(label) else label, []).extend(some)
    return merged


def _is_integer(label: str) -> bool:
    return NUMBER.fullmatch(label) is not None and not _is_decimal(label)


def _is_decimal(label: str) -> bool:
    return NUMBER.fullmatch(label) is not None and not label.lstrip("+-").isdecimal()


def _refuse_infinite(rows: Mapping[str, list[Row]]) -> None:
    for label, (row, *_) in rows.items():
        with suppress(ValueError):
            if not math.isfinite(float(label)):
                message = f"the label is {label!r}, which is no number; list it in data.labels if it is a class"
                raise at(row.where, message)


def _odd_label(rows: Mapping[str, list[Row]]) -> ConfigError:
    label = next(label for label in rows if not NUMBER.fullmatch(label))
    return at(rows[label][0].where, f"the label is {label!r}, where other labels are numbers with a decimal point; "
                                    "correct it, or list the classes in data.labels if they are such")  # fmt: skip


def _whole_numbers(train: Table, rows: Mapping[str, list[Row]]) -> ConfigError:
    return at(
        str(train.path), f"the labels are whole numbers with a decimal point ({_some(sorted(rows, key=float))}). Set "
        "data.problem: classification if each number is a class, or regression if the numbers are amounts"
    )  # fmt: skip


# -- what is odd about the classes ---------------------------------------------------------------------------------


def _check_classes(rows: Mapping[str, list[Row]]) -> None:
    """Refuses labels that look like two spellings of one class, and warns of others that may be mistakes."""
    plain: dict[str, str] = {}
    for label in rows:
        same = plain.setdefault(_plain(label), label)
        if same != label:
            rare, usual = sorted((label, same), key=lambda name: len(rows[name]))
            raise _two_spellings(rows, rare, usual)
    lookalikes = _lookalikes(rows)
    for label, usual in lookalikes.items():
        if len(rows[label]) == 1 and len(rows[usual]) >= PLENTY:
            raise _two_spellings(rows, label, usual)
    _warn("labels that look like others", [f"{_place(rows, label)} like {lookalikes[label]!r}" for label in lookalikes])
    single = [_place(rows, label) for label, some in rows.items() if len(some) == 1]
    amounts = "; data.problem: regression if they are amounts" if all(map(_is_integer, rows)) else ""
    _warn("classes with a single training example", single, amounts)
    _warn("labels that may stand for a missing one", [_place(rows, label) for label in rows if label in _MISSING])


def _warn(what: str, places: Sequence[str], more: str = "") -> None:
    if places:
        log.warning("%s: %s%s. %s%s", what, ", ".join(places[:5]), ", ..." if places[5:] else "", _CORRECT, more)


def _place(rows: Mapping[str, list[Row]], label: str) -> str:
    return f"{label!r} ({rows[label][0].where})"


def _plain(label: str) -> str:
    """Return what a label has in common with its other spellings: `1` of 01 and true, `pos` of Pos and full-width."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(char for char in text if not char.isspace() and unicodedata.category(char) != "Cf")
    return {"true": "1", "false": "0"}.get(text) or _whole(text)


def _lookalikes(rows: Mapping[str, list[Row]]) -> dict[str, str]:
    """Return the labels that may be another, far more frequent one with a typing mistake; and that one for each."""
    by_size = sorted(rows, key=lambda name: -len(rows[name]))
    found = {}
    for label in rows:
        usual = list(takewhile(lambda name: len(rows[name]) >= OFTEN * len(rows[label]), by_size))  # noqa: B023
        near = difflib.get_close_matches(label.casefold(), list(map(str.casefold, usual)), cutoff=NEAR)
        likely = [name for name in usual if name.casefold() in near and _has_same_numbers(label, name)]
        found.update({label: likely[0]} if likely else {})
    return found


def _has_same_numbers(label: str, other: str) -> bool:
    """Numbers distinguish classes: `class_1` is not a mistake for `class_2`."""
    return re.findall(r"\d+", label) == re.findall(r"\d+", other)


def _two_spellings(rows: Mapping[str, list[Row]], rare: str, common: str) -> ConfigError:
    look_the_same = unicodedata.normalize("NFC", rare) == unicodedata.normalize("NFC", common)
    show = ascii if look_the_same else repr
    return at(
        rows[rare][0].where, f"the label is {show(rare)} ({len(rows[rare])} in the file), which looks like a mistake "
        f"for {show(common)} ({len(rows[common])}). Correct it, or list all classes in data.labels if these are two"
    )  # fmt: skip


def warn_of_absent(task: GlueTask, data: GlueData, train: Sequence[float], dev: Sequence[float]) -> None:
    """Warns of classes that either set lacks, where both are read."""
    if task.is_regression or not train or not dev:
        return
    untaught, unscored = _absent(task, train), _absent(task, dev)
    if untaught:
        key = " (data.labels lists them)" if data.labels else ""
        log.warning("%s has no example of %s, so that nothing teaches the model these classes%s", data.train_file,
                    _some(untaught), key)  # fmt: skip
    if unscored and data.labels is None:
        key = f". {_CORRECT}" if task.name == NAME else ""
        log.warning("%s has no example of %s, so that no score tells about these classes%s", data.validation_file,
                    _some(unscored), key)  # fmt: skip


def _absent(task: GlueTask, numbers: Sequence[float]) -> list[str]:
    there = set(numbers)
    return [label for number, label in enumerate(task.labels) if number not in there]


# -- the tasks ------------------------------------------------------------------------------------------------------


def _regression() -> GlueTask:
    return GlueTask(NAME, (), (), ("pearson", "spearmanr"))


def _classification(labels: Sequence[str]) -> GlueTask:
    return GlueTask(NAME, (), tuple(labels), ("accuracy",))


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
