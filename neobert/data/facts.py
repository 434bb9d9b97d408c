"""Facts about the data for the log and result.json: the columns that were read, and the examples of each class."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from neobert.data.examples import Columns, Examples, Splits

log = logging.getLogger(__name__)

SHOWN = 20
"""Classes in the log; result.json has all."""


def announce(splits: Splits) -> None:
    sets = {name: " + ".join(str(len(part)) for part in parts if len(part)) for name, parts in _sets(splits).items()}
    sizes = " and ".join(f"{size} {name}" for name, size in sets.items() if size)
    log.info("%s (%s): %s examples", splits.task.name, splits.source, sizes)
    if splits.source == "generated":
        log.info("this data is synthetic: scores say nothing about GLUE")
    if splits.columns is not None:
        log.info("columns: %s", _columns_in_words(splits.columns))
    if splits.task.is_regression:
        log.info("labels: %s", _numbers_in_words(splits))
    else:
        log.info("classes: %s", _classes_in_words(splits))


def facts(splits: Splits) -> dict[str, Any]:
    """Return the facts for result.json."""
    values: dict[str, Any] = {"data": splits.source}
    if splits.columns is not None:
        columns = splits.columns
        values["columns"] = {"texts": list(columns.texts), "label": columns.label, "id": columns.id,
                            "ignored": list(columns.ignored)}  # fmt: skip
    return values if splits.task.is_regression else {**values, "classes": class_counts(splits)}


def class_counts(splits: Splits) -> dict[str, dict[str, int]]:
    """Examples of each class in each set that has labels: `{"no": {"train": 10, "dev": 3}, ...}`."""
    sets = {"train": splits.train}
    sets |= {f"dev{suffix}": dev for suffix, dev in splits.dev.items()}
    sets |= {name: test for name, test in splits.tests.items() if test.labels}
    counts = {name: Counter(map(int, examples.labels)) for name, examples in sets.items() if len(examples)}
    return {
        label: {name: count[number] for name, count in counts.items()}
        for number, label in enumerate(splits.task.labels)
    }


def _sets(splits: Splits) -> dict[str, list[Examples]]:
    return {"training": [splits.train], "dev": list(splits.dev.values()), "test": list(splits.tests.values())}


def _columns_in_words(columns: Columns) -> str:
    """`text 'review', label 'label'; not used: '' (unnamed), 'idx' (numbers)`."""
    used = [f"text{'s' if columns.texts[1:] else ''} {' and '.join(map(repr, columns.texts))}"]
    used += [f"label {columns.label!r}"] if columns.label is not None else []
    used += [f"id {columns.id!r}"] if columns.id is not None else []
    unused = ", ".join(f"{name!r} ({kind})" for name, kind in columns.ignored.items())
    return ", ".join(used) + (f"; not used: {unused}" if unused else "")


def _numbers_in_words(splits: Splits) -> str:
    numbers = next((part.labels for parts in _sets(splits).values() for part in parts if part.labels), None)
    return f"numbers from {min(numbers):g} to {max(numbers):g} (regression)" if numbers else "numbers (regression)"


def _classes_in_words(splits: Splits) -> str:
    """`no (10 train, 3 dev), yes (12 train, 4 dev)`."""
    counts = class_counts(splits)
    words = [
        f"{label} ({', '.join(f'{count} {name}' for name, count in of.items())})" if of else label
        for label, of in list(counts.items())[:SHOWN]
    ]
    more = f", and {len(counts) - SHOWN} more in result.json" if len(counts) > SHOWN else ""
    return ", ".join(words) + more
