"""Reads csv, tsv, json and jsonl files of one's own, by the conventions of run_glue.

The texts are the columns of the GLUE task if one is named, or `sentence1` and, if there is such, `sentence2`;
otherwise the first two columns that are not `label` (or the only one). Numbers as labels, one at least with a decimal
point or an exponent, make it a regression; other labels are classes, sorted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from neobert.data.examples import Examples, Splits, at, label_number
from neobert.data.glue_tasks import GlueTask
from neobert.data.rows import Row, first_row, read_rows

LABEL = "label"

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def read_own_files(
    train: Path | None, validation: Path | None, test: Path | None, task: GlueTask | None, labels: list[str] | None,
    columns_of: Path,
) -> Splits:  # fmt: skip
    """The task is `task` if given; otherwise the training file tells, with its classes in the order of `labels`.

    Files that are not needed are None; the training file is, unless `task` or `labels` tell what there is. A test set's
    labels, if it has any, are not read. `columns_of`, where it is there, has the columns of the texts: the training
    file even if nothing else of it is needed, so that a model is asked about the columns that it has learned from.
    """
    rows = {path: read_rows(path) for path in (train, validation, test) if path is not None}
    columns = _text_columns(first_row(columns_of) if columns_of.is_file() else _common(rows.values()), task)
    if task is None:
        task = _task_of(rows[train] if train else [], labels)
    # A GLUE task may have several dev sets, and other names for its columns.
    task = replace(task, sentences=columns, dev_sets=GlueTask.dev_sets)
    return Splits(
        task,
        "own files",
        _labelled(rows[train], task) if train else Examples(),
        {"": _labelled(rows[validation], task)} if validation else {},
        {"test": Examples([_texts(row, task) for row in rows[test]])} if test else {},
    )


def _common(files: Collection[list[Row]]) -> Row:
    """The first row, with the columns that all files have."""
    first, *others = (rows[0] for rows in files)
    shared = {name: value for name, value in first.cells.items() if all(name in row.cells for row in others)}
    return Row(first.where, shared)


def _text_columns(row: Row, task: GlueTask | None) -> tuple[str, ...]:
    names = [name for name, value in row.cells.items() if name != LABEL and not isinstance(value, dict | list)]
    usual = tuple(name for name in ("sentence1", "sentence2") if name in names)
    if task is None:
        if not names:
            raise at(row.where, "has no column of text")
        return usual if "sentence1" in usual else tuple(names[:2])
    if set(task.sentences) <= set(names):
        return task.sentences
    for columns in (usual, tuple(names)):
        if len(columns) == len(task.sentences):
            return columns
    expected = f"the column{'s' if len(task.sentences) > 1 else ''} {' and '.join(task.sentences)}"
    raise at(row.where, f"expected {expected} for {task.name}, found {', '.join(names) or 'none of text'}")


def _task_of(rows: list[Row], labels: list[str] | None) -> GlueTask:
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(_label(row), row)
    if labels is None:
        for label, row in found.items():
            _refuse_infinite(label, row)
        if any(_is_decimal(label) for label in found):
            return _regression(found)
        whole = all(map(_NUMBER.fullmatch, found))
        labels = sorted(found, key=int) if whole else sorted(found)
    if len(labels) < 2:
        raise at(rows[0].where, f"every label of the file is {labels[0]!r}; training needs two classes at least")
    for label, row in found.items():
        if label not in labels:
            raise at(row.where, f"the label is {label!r}, which is not in data.labels: {', '.join(labels)}")
    return GlueTask("own files", (), tuple(labels), ("accuracy",))


def _regression(found: dict[str, Row]) -> GlueTask:
    for label, row in found.items():
        if not _NUMBER.fullmatch(label):
            raise at(
                row.where, f"the label is {label!r}, where other labels are numbers with a decimal point; mend it, or "
                "list the classes in data.labels if they are such"
            )  # fmt: skip
    return GlueTask("own files", (), (), ("pearson", "spearmanr"))


def _is_decimal(label: str) -> bool:
    return _NUMBER.fullmatch(label) is not None and not label.lstrip("+-").isdecimal()


def _refuse_infinite(label: str, row: Row) -> None:
    with suppress(ValueError):
        if not math.isfinite(float(label)):
            raise at(row.where, f"the label is {label!r}, which is no number; list it in data.labels if it is a class")


def _labelled(rows: list[Row], task: GlueTask) -> Examples:
    return Examples.of((_texts(row, task), label_number(_label(row), task, row.where)) for row in rows)


def _texts(row: Row, task: GlueTask) -> tuple[str, ...]:
    return tuple(map(row.text, task.sentences))


def _label(row: Row) -> str:
    label = row.text(LABEL).strip()
    if not label:
        raise at(row.where, "the label is missing")
    return label
