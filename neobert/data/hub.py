"""GLUE from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neobert.config import ConfigError, Problem
from neobert.config.hub import HubName
from neobert.data.examples import Examples, Splits, at, label_number
from neobert.data.glue_tasks import GlueTask
from neobert.hub import how_to_fetch


def load_from_hub(name: str, task: GlueTask) -> Splits:
    """The task's training and validation sets from a data set in the layout of nyu-mll/glue."""
    dataset = _load(name, task)
    dev = {suffix: _examples(dataset, split, task, name) for suffix, _, split in task.dev_sets}
    return Splits(task, "hub", _examples(dataset, "train", task, name), dev)


def _load(name: str, task: GlueTask) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, task.name)
    except Exception as error:  # noqa: BLE001  # no connection, no such data set, a broken cache: many unrelated classes
        raise _problem(
            f"{name!r} ({task.name}) could not be loaded: {_first_line(error)}\n"
            f"{how_to_fetch(HubName('dataset', name, config=task.name))}. Or data.dir names a GLUE directory"
        ) from None


def _examples(dataset: Any, split: str, task: GlueTask, name: str) -> Examples:
    if split not in dataset:
        raise _problem(f"{name!r} has no split {split!r}; it has {', '.join(dataset)}")
    rows = dataset[split]
    missing = [column for column in (*task.sentences, "label") if column not in rows.column_names]
    if missing:
        raise _problem(f"{name!r} has no column {', '.join(missing)}; it has {', '.join(rows.column_names)}")
    theirs: Sequence[str] = getattr(rows.features["label"], "names", None) or []
    if not task.is_regression and sorted(theirs) != sorted(task.labels):
        raise _problem(f"{name!r} has the classes {theirs}, expected {', '.join(task.labels)}")
    examples = Examples()
    columns = [rows[column] for column in (*task.sentences, "label")]
    for number, (*texts, label) in enumerate(zip(*columns, strict=True)):
        where = f"data.hub: {name!r}: row {number} (from 0) of {split}"
        for column, text in zip(task.sentences, texts, strict=True):
            if not isinstance(text, str):
                raise at(where, f"{column} is {text!r}, expected text")
        examples.texts.append(tuple(texts))
        examples.labels.append(_our_label(label, theirs, task, where))
    return examples


def _our_label(label: float | None, theirs: Sequence[str], task: GlueTask, where: str) -> float:
    """The label as the number of our class: a data set may list its classes in another order, and hide some (-1)."""
    if task.is_regression:
        return label_number(str(label), task, where)
    if label is None or not 0 <= label < len(theirs):
        raise at(where, f"the label is {label}, expected one from 0 to {len(theirs) - 1}: it is hidden or missing")
    return task.labels.index(theirs[int(label)])


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(("data", "hub"), message)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
