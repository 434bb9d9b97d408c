"""Which of several trials is the best, by the score in each one's result."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from neobert.config import greater_is_better
from neobert.config.paths import why_missing
from neobert.training.files import TrialFiles


class NoBestTrial(Exception):
    """No trial is better than the others, or nobody can know."""


def best_trial(trials: Sequence[Path]) -> Path:
    """The trial with the best score: of a loss the lowest, of other metrics the highest; of equal ones the first.

    Raises `NoBestTrial` if one has no result, or none that could be better than another.
    """
    scores = [_score(trial) for trial in trials]
    metric = _one_metric(trials, [name for name, _ in scores])
    broken = [str(trial) for trial, (_, score) in zip(trials, scores, strict=True) if not math.isfinite(score)]
    if broken:
        raise NoBestTrial(
            f"the score of {', '.join(broken)} is no finite number, neither better nor worse than another: leave it "
            "out of the list"
        )
    sign = 1 if greater_is_better(metric) else -1
    return trials[max(range(len(trials)), key=lambda number: sign * scores[number][1])]


def _score(trial: Path) -> tuple[str, float]:
    path = TrialFiles(trial).result
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return result["metric"], math.nan if result["score"] is None else float(result["score"])
    except FileNotFoundError:
        raise NoBestTrial(f"{trial} has no result.json: the best of several trials is chosen when all are done"
                          f"{why_missing(path)}") from None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoBestTrial(f"{path} cannot be read: {error!r}") from None


def _one_metric(trials: Sequence[Path], names: Sequence[str]) -> str:
    metrics = dict(zip(reversed(names), reversed(trials), strict=True))  # each with the first trial that has it
    if len(metrics) > 1:
        told = ", ".join(f"{metric} (as {trial})" for metric, trial in sorted(metrics.items()))
        raise NoBestTrial(
            f"the trials are scored by different metrics, so that none is the best: {told}. Name one trial, or "
            "train again those that have another trainer.metric_for_best_model, or are of a version that scored all "
            "trials by the task's own metric"
        )
    if names[0] == "predictions":
        raise NoBestTrial(
            "the trials have made predictions alone (do_eval: false), so none of them is the best: name one of them"
        )
    return names[0]
