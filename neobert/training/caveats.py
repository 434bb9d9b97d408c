"""What a reader of a result must know before trusting its score: `warnings` in result.json.

Each is `SUMMARY: details`. Numbers and names stand in the details alone, so that trials can be counted by summary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neobert.config import GlueConfig, greater_is_better
from neobert.data.examples import Splits
from neobert.data.glue_tasks import GlueTask
from neobert.training.metrics import DISTINCT

if TYPE_CHECKING:
    from neobert.training.outcome import Outcome

RISEN = 2.0
"""A training loss that has risen is this many times its first value, and this many times that of a guess."""


def caveats(result: Mapping[str, Any], outcome: Outcome, config: GlueConfig, splits: Splits) -> list[str]:
    found = [no_better(result), *_constant(outcome, splits)]
    if config.do_train:
        found += [risen(outcome.losses, guess(splits.task, splits.train.labels)), _cold(outcome)]
    return [text for text in found if text]


def no_better(result: Mapping[str, Any]) -> str:
    score, baseline = result["score"], result.get("baseline")
    if baseline is None:
        return ""
    gain = score - baseline if greater_is_better(result["metric"]) else baseline - score
    if gain > 0:
        return ""
    name = result["baseline_name"].removeprefix("the ")
    return f"no better than the {name}: {result['metric']} is {score:.4f}, and {baseline:.4f} without looking at a text"


def _constant(outcome: Outcome, splits: Splits) -> Iterator[str]:
    """Of sets whose labels differ, those for which the model predicts one and the same thing."""
    sets = {f"dev{suffix}": (dev.labels, outcome.metrics.get(DISTINCT + suffix)) for suffix, dev in splits.dev.items()}
    sets |= {name: (splits.tests[name].labels, found.get(DISTINCT)) for name, found in outcome.tests.items()}
    for name, (labels, distinct) in sets.items():
        if distinct == 1 and len(set(labels)) > 1:
            what = "number" if splits.task.is_regression else "class"
            yield f"the predictions for the {name} set are all the same: one {what} for {len(labels)} examples"


def guess(task: GlueTask, labels: Sequence[float]) -> float:
    """The training loss of a model that has learned nothing: equal shares for all classes, or the mean."""
    return float(np.var(labels)) if task.is_regression else math.log(len(task.labels))


def risen(losses: Sequence[float], guessing: float) -> str:
    if not losses or losses[-1] <= RISEN * max(losses[0], guessing):
        return ""
    return (
        f"the training loss has risen: from {losses[0]:.4g} to {losses[-1]:.4g}, where guessing has {guessing:.4g}. A "
        "lower optimizer.lr or a longer warm-up may help"
    )


def _cold(outcome: Outcome) -> str:
    """Hugging Face's first step has a learning rate of 0, and the one after the warm-up the highest."""
    if outcome.steps > outcome.warmup_steps:
        return ""
    share = (outcome.steps - 1) / outcome.warmup_steps
    return (
        f"the training ended in its warm-up: after {outcome.steps} of {outcome.warmup_steps} steps, at {share:.2g} of "
        "optimizer.lr"
    )
