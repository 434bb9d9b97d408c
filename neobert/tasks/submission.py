"""`neobert submission`: the predictions of trials on GLUE as one zip file for the benchmark's server."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from neobert.config import ConfigError
from neobert.config.paths import why_missing
from neobert.config.submission import SubmissionConfig
from neobert.data.examples import at
from neobert.data.glue_tasks import SCORE, TASKS, GlueTask
from neobert.data.submission import glue_score, read_checked, write_zip
from neobert.errors import DONE
from neobert.training import lease, metrics
from neobert.training.best_trial import NoBestTrial, best_trial
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The trial whose predictions of a task are submitted."""

    task: GlueTask
    files: TrialFiles
    score: float


def run(config: SubmissionConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. The main process leaves submission.zip behind, and result.json last."""
    if not ranks.is_main:
        return DONE
    since = time.time()
    best = _best_of_each_task([Path(trial) for trial in config.trials])
    missing = [name for name in TASKS if name not in best]
    if missing and not config.partial:
        raise ConfigError.at(
            ("trials",),
            f"none is of {', '.join(missing)}: the benchmark takes all nine tasks (partial: true leaves out)",
        )
    files = {}
    for chosen in best.values():
        for test in chosen.task.tests:
            path = chosen.files.predictions / f"{test.name}.tsv"
            if config.partial and test.config is not None and not path.exists():
                missing.append(test.name)
                continue
            files[test.name] = read_checked(path, chosen.task, test)
    lease.check()
    write_zip(paths.directory / "submission.zip", files)
    if missing:
        log.warning("left out: %s", ", ".join(missing))
    _write_result(best, complete=len(best) == len(TASKS), seconds=time.time() - since, paths=paths)
    return DONE


def _best_of_each_task(trials: list[Path]) -> dict[str, Chosen]:
    """By each trial's own score, on the dev set; in the order of the task table."""
    of_task: dict[str, dict[Path, float]] = {}
    for trial in trials:
        task, score = _read(TrialFiles(trial))
        of_task.setdefault(task.name, {})[trial] = score
    chosen = {}
    for name in filter(of_task.__contains__, TASKS):
        try:
            best = best_trial(list(of_task[name]))
        except NoBestTrial as error:
            raise at(f"trials on {name}", str(error)) from None
        chosen[name] = Chosen(TASKS[name], TrialFiles(best), of_task[name][best])
    return chosen


def _read(files: TrialFiles) -> tuple[GlueTask, float]:
    """The task of a trial, and the benchmark's score on its dev set, whatever the trial is scored by."""
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
        task, score = TASKS[result["task_name"]], float(result["score"])
    except FileNotFoundError:
        message = f"has no result.json: it is not done{why_missing(files.result)}"
        raise at(str(files.directory), message) from None
    except (ValueError, KeyError, TypeError):
        raise at(str(files.result), "is no result of `neobert glue` on one of GLUE's tasks") from None
    if result.get("data") == "own files":
        raise at(str(files.result), "is of a trial on files of your own, which says nothing of GLUE's test sets: "
                                    "leave it out of trials")  # fmt: skip
    if result["metric"] == task.title(SCORE):
        return task, score
    try:
        return task, metrics.score(task, SCORE, result.get("metrics", {}))
    except KeyError:
        message = f"has no score on the dev set, but {result['metric']}: leave do_eval true"
        raise at(str(files.result), message) from None


def _write_result(best: dict[str, Chosen], complete: bool, seconds: float, paths: TrialFiles) -> None:
    scores = {name: chosen.score for name, chosen in best.items()}
    score = glue_score(list(scores.values()))
    metric = "glue" if complete else f"mean of {len(scores)} tasks"
    result = {
        "schema": 1, "task": "submission", "metric": metric, "score": score, "metrics": scores,
        "seconds": round(seconds, 3), "trials": {name: str(chosen.files.directory) for name, chosen in best.items()},
    }  # fmt: skip
    write_json(paths.result, result, durable=True)
    log.info("done: %s %.4f on the dev sets; %s", metric, score, paths.directory / "submission.zip")
