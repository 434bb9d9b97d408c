"""What every source of data yields: texts with labels, and the task that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from neobert.config import ConfigError, Problem
from neobert.data.glue_tasks import GlueTask

Texts = tuple[str, ...]
"""One sentence, or a pair."""
HIDDEN = ("-1", "-1.0")
"""In place of a label: nobody may know it. Hugging Face's GLUE has it in its test sets."""


@dataclass
class Examples:
    """Texts and their labels: class numbers, or floats where the task is a regression.

    A test set need not have labels. Only one of own files with an id column has `ids`.
    """

    texts: list[Texts] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[tuple[Texts, float]]) -> Examples:
        examples = cls()
        for texts, label in rows:
            examples.texts.append(texts)
            examples.labels.append(label)
        return examples

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[tuple[Texts, float]]:
        return zip(self.texts, self.labels, strict=True)

    def first(self, count: int | None) -> Examples:
        """The first `count` examples, as run_glue's max_*_samples; all of them for None."""
        return self if count is None else Examples(self.texts[:count], self.labels[:count], self.ids[:count])


@dataclass(frozen=True)
class Needed:
    """Which sets are used. Of the others not even the files need be there."""

    train: bool = True
    dev: bool = True
    tests: bool = False


TO_TRAIN = Needed()
"""And to evaluate, but not to predict."""


@dataclass(frozen=True)
class Columns:
    """Which columns of own files are used, and what the others hold."""

    texts: tuple[str, ...]
    label: str | None = None
    id: str | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """A task with its data; `dev` holds one set for each of the task's `dev_sets`, by suffix.

    `tests` are by the name under which the predictions are written; those of own files may have labels. What is not
    needed is empty.
    """

    task: GlueTask
    source: str
    train: Examples
    dev: dict[str, Examples]
    tests: dict[str, Examples] = field(default_factory=dict)
    columns: Columns | None = None
    """Own files alone have some."""

    def some(self) -> Examples:
        """A set that is there: the training set, if it is."""
        return next(examples for examples in (self.train, *self.dev.values(), *self.tests.values()) if len(examples))

    def summary(self) -> dict[str, Any]:
        """What a training depends on, to be compared: `digest` changes with every text and label."""
        digest = hashlib.sha256()
        for examples in (self.train, *self.dev.values()):
            for texts, label in examples:
                digest.update(repr((*texts, float(label))).encode())
        return {
            "classes": list(self.task.labels),
            "training examples": len(self.train),
            "dev examples": sum(map(len, self.dev.values())),
            "digest": digest.hexdigest(),
        }


def at(where: str, message: str) -> ConfigError:
    """A mistake in a data file; `where` is the file, or file:line."""
    return ConfigError([Problem((), message, where)])


def label_number(text: str, task: GlueTask, where: str) -> float:
    """The label that stands in a file, as a number; raises `ConfigError` naming the allowed ones."""
    if task.is_regression:
        return _float_label(text, task, where)
    for names in (task.codes, task.labels):
        if text in names:
            return names.index(text)
    allowed = ", ".join(task.codes or task.labels)
    raise at(where, f"the label is {text!r}, which is none of {task.name}'s: {allowed}{_hint(text, task)}")


def _hint(text: str, task: GlueTask) -> str:
    """Explain a number in place of a class name, and what to do."""
    if text in HIDDEN:
        return ". It hides the label, as in GLUE's test sets on the hub: use the training or validation split"
    if task.codes or text not in map(str, range(len(task.labels))):
        return ""
    meant = ", ".join(f"{number} is {name}" for number, name in enumerate(task.labels))
    return (
        f". In files that Hugging Face `datasets` exported, {meant}: then add data.labels: [{', '.join(task.labels)}], "
        "otherwise these names in the order of the file's numbers (own files alone: a GLUE directory holds names)"
    )


def _float_label(text: str, task: GlueTask, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise at(where, f"the label is {text!r}, expected a number") from None
    low, high = task.limits or (-1e30, 1e30)
    if not low <= value <= high:  # also refuses nan
        expected = f"a number from {low:g} to {high:g}" if task.limits else "a finite number"
        raise at(where, f"the label is {text!r}, expected {expected}")
    return value
