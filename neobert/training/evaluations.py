"""What a trial on GLUE leaves behind for people and other tools: run_glue's files, and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neobert.config import GlueConfig
from neobert.data.examples import Examples, Splits
from neobert.data.glue_tasks import GlueTask
from neobert.training.files import TrialFiles, write_json, write_text
from neobert.training.metrics import predicted

if TYPE_CHECKING:
    from neobert.training.outcome import Outcome

Array = np.ndarray[Any, np.dtype[Any]]


def write_evaluations(outcome: Outcome, config: GlueConfig, splits: Splits, paths: TrialFiles) -> None:
    """all_results.json; and eval_results.txt, for a task of several dev sets also one for each.

    The names in them are run_glue's: `eval_accuracy`, `eval_accuracy_mm`. Those of test sets with labels are
    `test_accuracy`, as everywhere.
    """
    found = {f"eval_{name}": value for name, value in outcome.metrics.items() if not name.endswith("_per_second")}
    told: dict[str, Any] = {
        "epoch": outcome.epochs,
        **({"train_samples": len(splits.train)} if config.do_train else {}),
    }
    told |= found if config.do_eval else outcome.metrics
    if config.do_eval:
        told |= {f"eval_samples{suffix}": len(dev) for suffix, dev in splits.dev.items()}
        _write_lines(paths.eval_results(), found)
    if config.do_eval and len(splits.dev) > 1:
        for suffix in splits.dev:
            of_it = (f"eval_{name}" for name in (*splits.task.measured, "loss"))
            # A checkpoint of an older version may be the best one, and lack metrics that are measured now.
            own = {name: found[name + suffix] for name in of_it if name + suffix in found}
            _write_lines(paths.eval_results(f"_{splits.task.name}{suffix.replace('_', '-')}"), own)
    told |= test_metrics(outcome)
    told |= {f"{name}_samples": len(splits.tests[name]) for name in outcome.tests}
    write_json(paths.all_results, told)


def test_metrics(outcome: Outcome) -> dict[str, float]:
    """The metrics of test sets that have labels: `test_accuracy`."""
    return {f"{test}_{name}": value for test, found in outcome.tests.items() for name, value in found.items()}


def _write_lines(path: Path, values: dict[str, float]) -> None:
    write_text(path, "".join(f"{_in_line(name)} = {value}\n" for name, value in sorted(values.items())))


def _in_line(name: str) -> str:
    """A metric's name with the name of a class in it, which may be any text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


# -- predictions ----------------------------------------------------------------------------------------------------


def write_predictions(outputs: dict[str, Array], splits: Splits, paths: TrialFiles) -> None:
    """A file for each test set, one line an example: of own files with all that is known, else as GLUE takes it."""
    if not outputs:
        return
    paths.predictions.mkdir(parents=True, exist_ok=True)
    for name, found in outputs.items():
        own = splits.columns is not None
        header, columns = _own_columns(found, splits.tests[name], splits.task) if own else _glue(found, splits.task)
        write_text(paths.predictions / f"{name}.tsv", _table(header, zip(*columns, strict=True)))


def _glue(outputs: Array, task: GlueTask) -> tuple[list[str], list[Sequence[Any]]]:
    said = [task.said(float(number)) for number in predicted(task, outputs)]
    return ["index", "prediction"], [range(len(said)), said]


def _own_columns(outputs: Array, test: Examples, task: GlueTask) -> tuple[list[str], list[Sequence[Any]]]:
    """Their names, and the cells of each."""
    columns: list[tuple[str, Sequence[Any]]] = [("index", range(len(outputs)))]
    columns += [("id", test.ids)] if test.ids else []
    columns.append(("prediction", _answers(outputs, task)))
    if not task.is_regression:
        shares = zip(task.labels, probabilities(outputs).T, strict=True)
        columns += [(f"p({label})", [f"{share:.6g}" for share in of_all]) for label, of_all in shares]
    if test.labels:
        columns.append(("label", [_label(number, task) for number in test.labels]))
    header, cells = zip(*columns, strict=True)
    return list(header), list(cells)


def _answers(outputs: Array, task: GlueTask) -> list[str]:
    """Class names; of a regression the numbers as float32 has them, within the limits of a GLUE task."""
    found = predicted(task, outputs)
    if not task.is_regression:
        return [_label(number, task) for number in found]
    return [str(np.float32(number)) for number in np.clip(found, *(task.limits or (-np.inf, np.inf)))]


def _label(number: float, task: GlueTask) -> str:
    return str(number) if task.is_regression else task.labels[int(number)]


def probabilities(outputs: Array) -> Array:
    """(examples, classes): the softmax of a model's outputs."""
    shares = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "".join("\t".join(_cell(str(cell)) for cell in row) + "\n" for row in (header, *rows))


def _cell(text: str) -> str:
    """Between quotes where it holds a tab, a quote or a line break: Python 3.11's own writer forgets CR."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set('\t\r\n"') else text
