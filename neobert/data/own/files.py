"""Reads the user's own files into examples."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from neobert.config.glue_data import GlueData
from neobert.data.examples import Columns, Examples, Needed, Splits, at
from neobert.data.glue_tasks import GlueTask
from neobert.data.own.columns import choose
from neobert.data.own.labels import Head, class_labels, labels_of_test, task_of, warn_of_absent
from neobert.data.own.rows import Row, Table, read_table

log = logging.getLogger(__name__)


def read_own_files(data: GlueData, task: GlueTask | None, needed: Needed, head: Head | None = None) -> Splits:
    """The examples of the files that are needed; raises `ConfigError` for any fault in them.

    Without `task`, the settings and the training file tell what there is to learn, or without that file `head`.
    """
    tables = _tables(data, needed, task is None and data.labels is None and data.problem != "regression", head)
    columns = choose(tables, data, task)
    task = task or task_of(data, tables.get("train"), columns.label, head)
    # A GLUE task may have several dev sets, and other names for its columns.
    task = replace(task, sentences=columns.texts, dev_sets=GlueTask.dev_sets)
    train, dev = (_labelled(tables.get(name), columns, task, data) for name in ("train", "dev"))
    warn_of_absent(task, data, train.labels, dev.labels)
    return Splits(
        task,
        "own files",
        train,
        {"": dev} if "dev" in tables else {},
        {"test": _test(tables["test"], columns, task, data)} if "test" in tables else {},
        columns,
    )


def _tables(data: GlueData, needed: Needed, asks_for_classes: bool, head: Head | None) -> dict[str, Table]:
    """The files that are read: the training file also where nothing else names the classes."""
    names_classes = asks_for_classes and not (head and (head.classes or head.is_regression))
    files = {
        "train": data.train_file if needed.train or names_classes else None,
        "dev": data.validation_file if needed.dev else None,
        "test": data.test_file if needed.tests else None,
    }
    return {name: read_table(Path(file), data.quotes) for name, file in files.items() if file is not None}


def _labelled(table: Table | None, columns: Columns, task: GlueTask, data: GlueData) -> Examples:
    if table is None:
        return Examples()
    assert columns.label is not None, "`choose` finds one for sets that have labels"
    return Examples(_texts(table, columns), class_labels(task, data, table, columns.label))


def _test(table: Table, columns: Columns, task: GlueTask, data: GlueData) -> Examples:
    labels = labels_of_test(task, data, table, columns.label)
    ids = [_id(row, columns.id) for row in table.rows] if columns.id is not None else []
    return Examples(_texts(table, columns), labels, ids)


def _texts(table: Table, columns: Columns) -> list[tuple[str, ...]]:
    texts = [tuple(map(row.text, columns.texts)) for row in table.rows]
    empty = [row.where for row, some in zip(table.rows, texts, strict=True) if not all(map(str.strip, some))]
    if empty:
        log.warning("%s: %d of %d examples have an empty text (the first: %s). They are used as they are; remove "
                    "them if a text is missing", table.path, len(empty), len(texts), empty[0])  # fmt: skip
    return texts


def _id(row: Row, column: str) -> str:
    """It becomes a field of a table, between tabs."""
    text = row.text(column)
    if not text.strip() or set(text) & set("\t\r\n"):
        what = "missing" if not text.strip() else f"{text!r}: it holds a tab or a line break"
        raise at(row.where, f"the id in {column} is {what}")
    return text
