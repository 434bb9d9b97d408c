"""GLUE's submission format: one zip, in it a TSV file for each test set (https://gluebenchmark.com/faq)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neobert.config.paths import why_missing
from neobert.data.examples import at
from neobert.data.glue_tasks import GlueTask, Unlabelled

HEADER = "index\tprediction"


def read_checked(path: Path, task: GlueTask, test: Unlabelled) -> str:
    """The text of a file of predictions; raises `ConfigError` for anything that the benchmark would not take."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise at(str(path), f"does not exist{why_missing(path)}: {_advice(path, task, test)}") from None
    lines = text.split("\n")
    if lines.pop() or not lines or lines[0] != HEADER:
        raise at(f"{path}:1", f"is no file of predictions: expected the header {HEADER!r} and whole lines")
    if len(lines) - 1 != test.rows:
        raise at(str(path), f"holds {len(lines) - 1} predictions, but the test set of {test.name} has {test.rows} rows "
                            "(data.max_predict_samples must be left out)")  # fmt: skip
    for number, line in enumerate(lines[1:]):
        index, _, said = line.partition("\t")
        if index != str(number):
            raise at(f"{path}:{number + 2}", f"has the index {index!r}, expected {number}")
        if not _is_answer(said, task):
            raise at(f"{path}:{number + 2}", f"says {said!r}, which is no answer to {test.name}")
    return text


def _advice(path: Path, task: GlueTask, test: Unlabelled) -> str:
    """What to do for predictions that are not there: a trial that predicts skips a set only where data.dir lacks it."""
    predicted = any((path.parent / f"{other.name}.tsv").exists() for other in task.tests)
    if test.config is None or not predicted:
        return "the trial must run with do_predict: true"
    files = " or ".join(f"{place}.tsv" for place in test.file.split(", "))
    return (
        f"the trial predicted, but its data.dir had no {files}. Put that there and predict once more, by a trial with "
        f"do_train: false whose model.pretrained_checkpoint_dir is this one; partial: true leaves {test.name} out"
    )


def _is_answer(text: str, task: GlueTask) -> bool:
    if not task.is_regression:
        return text in (task.codes or task.labels)
    low, high = task.limits or (-np.inf, np.inf)
    try:
        return bool(low <= float(text) <= high)
    except ValueError:
        return False


def write_zip(path: Path, files: Mapping[str, str]) -> None:
    """All files at the top of the zip, with a fixed date: the same predictions make the same file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(f"{name}.tsv"), text, zipfile.ZIP_DEFLATED)


def glue_score(scores: Sequence[float]) -> float:
    """The mean over tasks, each of which is the mean of its own metrics; AX does not count."""
    return float(np.mean(scores))
