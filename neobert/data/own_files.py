"""Reads csv, tsv, json and jsonl files of one's own, by the conventions of run_glue.

The texts are the columns `sentence1` and `sentence2` if there are such, otherwise the first two columns that are not
`label` (or the only one). Labels with a decimal point make it a regression; other labels are classes, sorted.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.data.examples import Examples, Splits, Texts, at, label_number
from neobert.data.glue_tasks import GlueTask

LABEL = "label"


@dataclass(frozen=True)
class Row:
    where: str
    cells: dict[str, str]


def read_own_files(
    train: Path, validation: Path, test: Path | None, task: GlueTask | None, labels: list[str] | None
) -> Splits:
    """The task is `task` if given; otherwise it follows from the files, with its classes in the order of `labels`."""
    rows = {path: read_rows(path) for path in (train, validation, test) if path is not None}
    columns = _text_columns(rows[train][0], task)
    if task is None:
        task = _task_of(rows[train], columns, labels)
    return Splits(
        task,
        "own files",
        _examples(rows[train], columns, task),
        {"": _examples(rows[validation], columns, task)},
        _examples(rows[test], columns, task, may_lack_labels=True) if test else None,
    )


def _text_columns(row: Row, task: GlueTask | None) -> tuple[str, ...]:
    names = [name for name in row.cells if name != LABEL]
    for wanted in (task.sentences if task else (), ("sentence1", "sentence2")):
        if wanted and set(wanted) <= set(names):
            return tuple(wanted)
    if not names:
        raise at(row.where, "has no column of text")
    return tuple(names[: len(task.sentences) if task else 2])


def _task_of(rows: list[Row], columns: tuple[str, ...], labels: list[str] | None) -> GlueTask:
    found = {_label(row): row for row in rows}
    if labels is None and all(map(_is_number, found)):
        if any(not text.lstrip("+-").isdigit() for text in found):
            return GlueTask("own files", columns, (), ("pearson", "spearmanr"))
        labels = sorted(found, key=int)
    elif labels is None:
        labels = sorted(found)
    if len(labels) < 2:
        raise at(rows[0].where, f"every label of the file is {labels[0]!r}; training needs two classes at least")
    for label, row in found.items():
        if label not in labels:
            raise at(row.where, f"the label is {label!r}, which is not in data.labels: {', '.join(labels)}")
    return GlueTask("own files", columns, tuple(labels), ("accuracy",))


def _examples(rows: list[Row], columns: tuple[str, ...], task: GlueTask, may_lack_labels: bool = False) -> Examples:
    labelled = not may_lack_labels or LABEL in rows[0].cells
    texts: list[Texts] = []
    labels: list[float] = []
    for row in rows:
        missing = [name for name in columns if name not in row.cells]
        if missing:
            raise at(row.where, f"has no {' or '.join(missing)}; it holds {', '.join(row.cells)}")
        texts.append(tuple(row.cells[name] for name in columns))
        if labelled:
            labels.append(label_number(_label(row), task, row.where))
    return Examples(texts, labels)


def _label(row: Row) -> str:
    if LABEL not in row.cells:
        raise at(row.where, f"has no {LABEL}; it holds {', '.join(row.cells)}")
    return row.cells[LABEL]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, by its ending; raises `ConfigError` with file and line for a malformed one."""
    readers = {".csv": _delimited, ".tsv": _delimited, ".json": _json, ".jsonl": _json}
    if path.suffix.lower() not in readers:
        raise at(str(path), f"ends in {path.suffix or 'nothing'}; expected one of {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise at(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise at(str(path), f"is not UTF-8 text (byte {error.start})") from None
    rows = list(readers[path.suffix.lower()](path, text))
    if not rows:
        raise at(str(path), "holds no examples")
    return rows


def _delimited(path: Path, text: str) -> Iterator[Row]:
    tabs = path.suffix.lower() == ".tsv"
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", strict=True,
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = cells
            elif cells:
                if len(cells) != len(header):
                    where = f"{path}:{reader.line_num}"
                    raise at(where, f"expected {len(header)} columns ({', '.join(header)}), found {len(cells)}")
                yield Row(f"{path}:{reader.line_num}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise at(f"{path}:{reader.line_num}", f"is malformed: {error}") from None


def _json(path: Path, text: str) -> Iterator[Row]:
    """An object a line, or one array of objects."""
    if text.lstrip().startswith("["):
        entries = [(f"{path}: item {n}", item) for n, item in enumerate(_parse(text, str(path)), start=1)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        entries = [(f"{path}:{n}", _parse(line, f"{path}:{n}")) for n, line in lines if line.strip()]
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise at(where, f"expected an object, found {json.dumps(entry)[:60]}")
        yield Row(where, {name: _cell(value, name, where) for name, value in entry.items()})


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise at(where, f"is not JSON: {error.msg} (column {error.colno})") from None


def _cell(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise at(where, f"{name} is {json.dumps(value)[:60]}, expected text or a number")
    return repr(value)  # tells 3.0 from 3: whether a label is a float decides between regression and classes
