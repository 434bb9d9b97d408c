"""Draws examples from the grammar: the same ones on every machine, whatever the seed of the trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

from neobert.config import ConfigError
from neobert.data.examples import Examples, Splits, Texts
from neobert.data.glue_tasks import TASKS, GlueTask
from neobert.data.grammar import pairs, sentences

DEV_ROWS = 400
"""Rows of a dev set, however many there are to train on."""

_FUNCTIONS: dict[str, Callable[[Random], tuple[Texts, float]]] = {
    "cola": sentences.acceptability, "sst2": sentences.sentiment, "mrpc": pairs.paraphrase, "stsb": pairs.similarity,
    "qqp": pairs.same_question, "mnli": pairs.inference, "qnli": pairs.answering, "rte": pairs.entailment,
    "wnli": pairs.reference,
}  # fmt: skip


def generated_splits(task: GlueTask, train_rows: int, tests: bool = False) -> Splits:
    """Training, dev and test sets without a common or repeated example.

    The dev sets are drawn first: they do not change with `train_rows`, and more training rows begin with the fewer. Nor
    do they change where test sets, which are drawn last, are asked for.
    """
    seen: set[Texts] = set()
    dev = {suffix: Examples.of(_fresh(task, name, DEV_ROWS, seen)) for suffix, name, _ in task.dev_sets}
    train = Examples.of(_fresh(task, "train", train_rows, seen))
    unlabelled = {
        test.name: Examples([texts for texts, _ in _fresh(task, test.name, DEV_ROWS, seen)])
        for test in (task.tests if tests else ())
    }
    return Splits(task, "generated", train, dev, unlabelled)


def _fresh(task: GlueTask, split: str, count: int, seen: set[Texts]) -> Iterator[tuple[Texts, float]]:
    """`count` examples that are not in `seen`, which grows by them."""
    rng = Random(f"{task.name} {split}")  # a string seeds alike in every Python; hash() is not used
    repeats = 0
    while count:
        texts, label = _FUNCTIONS[task.name](rng)
        if texts not in seen:
            seen.add(texts)
            yield texts, label
            count, repeats = count - 1, 0
        elif (repeats := repeats + 1) > 1000:
            raise ConfigError(f"data.generated: the grammar has hardly more than {len(seen)} examples for {task.name}")


def write_glue_directory(directory: Path, task_name: str, train_rows: int) -> Path:
    """Writes TASK/train.tsv, the dev files and the test files exactly as GLUE lays them out; returns the folder."""
    task = TASKS[task_name]
    assert task.tsv is not None
    splits = generated_splits(task, train_rows, tests=True)
    folder = directory / task.tsv.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.tsv").write_text("".join(_tsv_lines(task, splits.train)), encoding="utf-8")
    for suffix, name, _ in task.dev_sets:
        (folder / f"{name}.tsv").write_text("".join(_tsv_lines(task, splits.dev[suffix])), encoding="utf-8")
    for test in task.tests:
        path = folder / f"{test.file}.tsv" if test.config is None else directory / f"{test.file.split(', ')[0]}.tsv"
        path.parent.mkdir(exist_ok=True)
        lines = [[str(number), *texts] for number, texts in enumerate(splits.tests[test.name].texts)]
        header = ["index", *task.tsv.sentences]
        path.write_text("".join("\t".join(cells) + "\n" for cells in [header, *lines]), encoding="utf-8")
    return folder


def _tsv_lines(task: GlueTask, rows: Iterable[tuple[Texts, float]]) -> Iterator[str]:
    layout = task.tsv
    assert layout is not None
    if layout.has_header:
        yield "\t".join(layout.header) + "\n"
    classes = task.codes or task.labels
    for index, (texts, label) in enumerate(rows):
        cells = dict.fromkeys(layout.header, "")
        if "index" in cells:
            cells["index"] = str(index)
        cells |= dict(zip(layout.sentences, texts, strict=True))
        cells[layout.label] = f"{label:.3f}" if task.is_regression else classes[int(label)]
        yield "\t".join(cells.values()) + "\n"
