"""GLUE from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from neobert.config import ConfigError, Problem
from neobert.config.hub import HubName
from neobert.data.examples import TO_TRAIN, Examples, Needed, Splits, Texts, at, label_number
from neobert.data.glue_tasks import GlueTask
from neobert.hub import how_to_fetch


def load_from_hub(name: str, task: GlueTask, needed: Needed = TO_TRAIN) -> Splits:
    """The task's training, validation and test sets that are needed, from a data set in the layout of nyu-mll/glue."""
    dataset = _load(name, task.name)
    train = _examples(dataset, "train", task, name) if needed.train else Examples()
    dev_sets = task.dev_sets if needed.dev else ()
    dev = {suffix: _examples(dataset, split, task, name) for suffix, _, split in dev_sets}
    unlabelled = {}
    for test in task.tests if needed.tests else ():
        other = dataset if test.config is None else _load(name, test.config)
        unlabelled[test.name] = Examples([texts for _, texts in _texts(other, test.split, task, name)])
    return Splits(task, "hub", train, dev, unlabelled)


def _load(name: str, config: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config)
    except Exception as error:  # noqa: BLE001  # no connection, no such data set, a broken cache: many unrelated classes
        raise _problem(
            f"{name!r} ({config}) could not be loaded: {_first_line(error)}\n"
            f"{how_to_fetch(HubName('dataset', name, config=config))}. Or data.dir names a GLUE directory"
        ) from None


def _texts(dataset: Any, split: str, task: GlueTask, name: str) -> Iterator[tuple[str, Texts]]:
    """The texts of a split, each with its place for messages."""
    if split not in dataset:
        raise _problem(f"{name!r} has no split {split!r}; it has {', '.join(dataset)}")
    rows = dataset[split]
    missing = [column for column in task.sentences if column not in rows.column_names]
    if missing:
        raise _problem(f"{name!r} has no column {', '.join(missing)}; it has {', '.join(rows.column_names)}")
    for number, texts in enumerate(zip(*(rows[column] for column in task.sentences), strict=True)):
        where = f"data.hub: {name!r}: row {number} (from 0) of {split}"
        for column, text in zip(task.sentences, texts, strict=True):
            if not isinstance(text, str):
                raise at(where, f"{column} is {text!r}, expected text")
        yield where, texts


def _examples(dataset: Any, split: str, task: GlueTask, name: str) -> Examples:
    texts = list(_texts(dataset, split, task, name))
    rows = dataset[split]
    if "label" not in rows.column_names:
        raise _problem(f"{name!r} has no column label; it has {', '.join(rows.column_names)}")
    theirs: Sequence[str] = getattr(rows.features["label"], "names", None) or []
    if not task.is_regression and sorted(theirs) != sorted(task.labels):
        raise _problem(f"{name!r} has the classes {theirs}, expected {', '.join(task.labels)}")
    return Examples.of(
        (pair, _our_label(label, theirs, task, where))
        for (where, pair), label in zip(texts, rows["label"], strict=True)
    )


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
