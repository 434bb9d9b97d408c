"""Which columns of own files hold the texts, the labels and the ids.

The settings name them. Without a name a column is chosen only where no other could be meant: everything else is an
error that lists the columns, because a model learns from ids and descriptions of labels as readily as from texts.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping

from neobert.config import ConfigError
from neobert.config.glue_data import GlueData
from neobert.data.examples import Columns, at
from neobert.data.glue_tasks import GlueTask
from neobert.data.own.rows import Table
from neobert.data.own.survey import Column, survey

log = logging.getLogger(__name__)

LABELS = ("label", "labels")

PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "answer"), ("question", "passage"), ("query", "passage"), ("claim", "evidence"),
    ("sentence_A", "sentence_B"), ("text_a", "text_b"), ("text1", "text2"),
)  # fmt: skip
"""Names of the two texts of a pair in public data sets, in their order."""

REPEATED = 4
"""Rows of each label from which on it is no accident that they all have the same text."""
_SEPARATORS = {".csv": ";\t|", ".tsv": ",;|"}
"""Characters that separate fields in files of another kind, by ending."""
_TEXT_OF_NO_USE = {
    "unnamed": "has no name, so it holds row numbers",
    "numbers": "holds numbers alone",
    "empty": "is empty",
    "lists or objects": "holds lists or objects",
    "bytes": "holds bytes that are not UTF-8 text",
}
"""Kinds of columns that are no text, even where the settings name one."""


def choose(tables: Mapping[str, Table], data: GlueData, task: GlueTask | None) -> Columns:
    """The columns that are used, of the tables by set: train, dev, test. Raises `ConfigError` unless they are certain.

    The training file decides where it is read, and otherwise what the others have in common.
    """
    for table in tables.values():
        _check_separator(table)
    judged = [tables["train"]] if "train" in tables else list(tables.values())
    columns = survey(judged)
    where = " and ".join(str(table.path) for table in judged)
    label = _label_column(tables, data, columns, where)
    others = {name: column for name, column in columns.items() if name not in (label, data.id_column)}
    texts = _text_columns(others, data, task)
    if texts is None:
        raise _unclear(where, columns, label, data, task, needs_label=tables.keys() != {"test"})
    if data.text_columns is None and task is None and label is not None:
        _warn_of_names(judged, texts, label, where)
    twice = {label, data.id_column} & {*texts} or {label} & {data.id_column} - {None}
    if twice:
        raise at(where, f"the column {twice.pop()} cannot be two of text, label and id. Name others under `data`")
    _check_texts(texts, columns, where)
    _check_presence(tables, texts, label, data.id_column)
    used = {*texts, label, data.id_column}
    every = dict.fromkeys(name for table in tables.values() for name in table.columns)
    ignored = {name: columns[name].kind if name in columns else "not in all files" for name in every}
    return Columns(texts, label, data.id_column, {name: kind for name, kind in ignored.items() if name not in used})


def _label_column(tables: Mapping[str, Table], data: GlueData, columns: Mapping[str, Column], where: str) -> str | None:
    """The one that is named, or `label`, or `labels`; None where a test set without labels is all that is read."""
    if data.label_column is not None:
        return data.label_column
    there = {name for table in tables.values() for name in table.columns}
    labels = [name for name in LABELS if name in there]
    if len(labels) > 1 or (not labels and tables.keys() & {"train", "dev"}):
        raise _unclear(where, columns, None, data, None)
    return labels[0] if labels else None


def _text_columns(columns: Mapping[str, Column], data: GlueData, task: GlueTask | None) -> tuple[str, ...] | None:
    """None where it is not certain."""
    if data.text_columns is not None:
        return tuple(data.text_columns)
    if task is not None:
        for known in (task.sentences, PAIRS[0]):
            if len(known) == len(task.sentences) and columns.keys() >= set(known):
                return known
    texts = _certain(columns)
    return texts if texts and (task is None or len(texts) == len(task.sentences)) else None


def _certain(columns: Mapping[str, Column]) -> tuple[str, ...] | None:
    """A known pair, or the only column of text."""
    texts = [name for name, column in columns.items() if column.is_text]
    if any(column.may_hold_text for column in columns.values()):
        return None
    for pair in PAIRS:
        if columns.keys() >= set(pair):
            return pair if set(texts) == set(pair) else None
    return tuple(texts) if len(texts) == 1 else None


def _check_separator(table: Table) -> None:
    """Refuse a file whose fields are separated by something else than its ending says."""
    name = table.columns[0] if len(table.columns) == 1 else ""
    found = next((separator for separator in _SEPARATORS.get(table.path.suffix.lower(), "") if separator in name), None)
    if found:
        raise at(
            f"{table.path}:1", f"names a single column, {_word(name)}. Its fields seem to be separated by {found!r}: "
            "a .csv has commas, and a .tsv has tabs"
        )  # fmt: skip


def _warn_of_names(tables: Iterable[Table], texts: tuple[str, ...], label: str, where: str) -> None:
    """Warn of texts that only repeat the label, such as its description: scores would be perfect, and mean nothing."""
    rows = [row for table in tables for row in table.rows]
    pairs = {tuple(str(row.cells.get(name)) for name in (*texts, label)) for row in rows}
    labels = {str(row.cells.get(label)) for row in rows}
    if len(labels) > 1 and len(pairs) == len(labels) and len(rows) >= REPEATED * len(labels):
        log.warning("%s: the text in the column %s is the same for all examples of a label, as if it were the label's "
                    "name. data.text_columns names the column of the text", where, _names(texts))  # fmt: skip


def _check_texts(texts: Iterable[str], columns: Mapping[str, Column], where: str) -> None:
    for name in texts:
        if name not in columns:
            raise at(where, f"has no column {name}; its columns are {_names(columns)}")
        if columns[name].kind in _TEXT_OF_NO_USE:
            why = _TEXT_OF_NO_USE[columns[name].kind]
            raise at(where, f"the column {_word(name)} {why}. Name a column of text in data.text_columns")


def _check_presence(tables: Mapping[str, Table], texts: Iterable[str], label: str | None, ids: str | None) -> None:
    """All files must have the columns that are used; a test file needs no labels, and alone needs ids."""
    for split, table in tables.items():
        needed = [*texts, *([label] if label and split != "test" else []), *([ids] if ids and split == "test" else [])]
        missing = [name for name in needed if name not in table.columns]
        if missing:
            raise at(str(table.path), f"has no column {' or '.join(missing)}; its columns are {_names(table.columns)}")


# -- what to do where it is not certain ---------------------------------------------------------------------------


def _unclear(
    where: str, columns: Mapping[str, Column], label: str | None, data: GlueData, task: GlueTask | None,
    needs_label: bool = True,
) -> ConfigError:  # fmt: skip
    """Lists the columns, and the lines to add to the settings."""
    what = "which column holds the labels" if label is None and needs_label else "which columns are text"
    count = len(task.sentences) if task else 1
    label = label or (_guess_label(columns) if needs_label else None)
    texts = _guess_texts(columns, label, data, count)
    expected = f" ({task.name} needs {count})" if task else ""
    width = max((len(_word(name)) for name in columns), default=0)
    listed = [f"  {_word(name):{width}}  {column.kind}, such as {column.example}" for name, column in columns.items()]
    lines = [f"    text_columns: [{', '.join(texts)}]"]
    lines += [f"    label_column: {_word(label) if label else 'NAME'}"] if label or needs_label else []
    return at(
        where, "\n".join([f"cannot tell {what}{expected}. The columns are:", *listed,
                          "Say which under `data`, with the names that are right here:", *lines])
    )  # fmt: skip


def _guess_texts(columns: Mapping[str, Column], label: str | None, data: GlueData, count: int) -> list[str]:
    """Suggest columns for the message: those that are named, or the longest."""
    if data.text_columns is not None:
        return list(map(_word, data.text_columns))
    texts = [column for name, column in columns.items() if column.is_text and name not in (label, data.id_column)]
    longest = sorted(texts, key=lambda column: -column.length)[:count]
    return [_word(column.name) for column in texts if column in longest] or ["NAME"]


def _guess_label(columns: Mapping[str, Column]) -> str | None:
    """Suggest a column for the message: the one with the fewest values."""
    distinct = {name: column.distinct for name, column in columns.items() if column.kind != "unnamed"}
    some = [name for name, count in distinct.items() if count > 1]
    return min(some, key=lambda name: distinct[name]) if some else None


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(_word, names)) or "none"


def _word(name: str) -> str:
    """A name as YAML takes it, also in a list."""
    plain = re.fullmatch(r"[^\W\d][\w.-]*(?: [\w.-]+)*", name) and name.lower() not in ("true", "false", "null")
    return name if plain else json.dumps(name, ensure_ascii=False)
