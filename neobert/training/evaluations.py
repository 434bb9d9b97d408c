"""What a trial on GLUE leaves behind for people and other tools: run_glue's files, and predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neobert.config import GlueConfig
from neobert.data.examples import Splits
from neobert.data.glue_tasks import GlueTask
from neobert.errors import RunError
from neobert.training.files import TrialFiles, write_json, write_text

if TYPE_CHECKING:
    from neobert.training.finetune import Outcome

Array = np.ndarray[Any, np.dtype[Any]]


def write_evaluations(outcome: Outcome, config: GlueConfig, splits: Splits, paths: TrialFiles) -> None:
    """all_results.json; and eval_results.txt, for a task of several dev sets also one for each.

    The names in them are run_glue's: `eval_accuracy`, `eval_accuracy_mm`.
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
            of_it = (*splits.task.measured, "loss")
            own = {f"eval_{name}": found[f"eval_{name}{suffix}"] for name in of_it}
            _write_lines(paths.eval_results(f"_{splits.task.name}{suffix.replace('_', '-')}"), own)
    write_json(paths.all_results, told)


def _write_lines(path: Path, values: dict[str, float]) -> None:
    write_text(path, "".join(f"{name} = {value}\n" for name, value in sorted(values.items())))


def check_finite(outcome: Outcome, task: GlueTask) -> None:
    """Raises `RunError` for scores and outputs that are no finite numbers: the largest of several NaN is class 0."""
    broken = [f"{name} is {outcome.metrics[name]}" for name in task.scored if name in outcome.metrics
              and not math.isfinite(outcome.metrics[name])]  # fmt: skip
    for name, found in outcome.outputs.items():
        examples = int((~np.isfinite(found)).any(axis=1).sum())
        if examples:
            broken.append(f"{examples} of {len(found)} predictions for {name} are no numbers")
    if broken:
        raise RunError(
            f"what the model computes is not finite ({'; '.join(broken)}), so there is no result. Its weights are too "
            "large, or trainer.mixed_precision is too coarse for them: try no, or bf16 instead of fp16"
        )


def write_predictions(outputs: dict[str, Array], splits: Splits, paths: TrialFiles) -> None:
    """A file for each test set, one line an example, as GLUE takes submissions."""
    if not outputs:
        return
    paths.predictions.mkdir(exist_ok=True)
    for name, found in outputs.items():
        rows = "".join(f"{index}\t{said}\n" for index, said in enumerate(_said(found, splits.task)))
        write_text(paths.predictions / f"{name}.tsv", f"index\tprediction\n{rows}")


def _said(outputs: Array, task: GlueTask) -> list[str]:
    numbers = outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)
    return [task.said(float(number)) for number in numbers]
