"""Which trials of a run are done: their results are sound, and made from what is there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.inputs import stage_needs, stale_trials
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl


@dataclass(frozen=True)
class Files:
    """What the files of a trial say of its result and of its last attempt."""

    result: Mapping[str, Any] | None
    last: Mapping[str, Any]
    damage: str = ""


def read_files(directory: TrialDir) -> Files:
    """Reads them; a damaged file of one trial does not hide the others."""
    try:
        result = read_json(directory.result)
        if result is not None:
            _check_result(directory.result, result)
        return Files(result, directory.last_attempt())
    except (ConfigError, OSError, TypeError, ValueError) as error:
        return Files(None, {}, f"its files are damaged: {error}")


def stale_among(
    run: RunDir, needs: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]], files: Mapping[str, Files]
) -> dict[str, str]:
    """Which of the trials with a result were made from other results than those that are there now, and why."""
    done = {trial: seen.last for trial, seen in files.items() if seen.result is not None}
    return stale_trials(run, needs, rows, done)


def done_trials(run: RunDir) -> set[str]:
    """The trials of a run that need not run again. Raises `ConfigError`."""
    rows = read_jsonl(run.manifest) if run.manifest.exists() else []
    files = {row["id"]: read_files(run.trial(row["id"])) for row in rows}
    stale = stale_among(run, stage_needs(run, rows), rows, files)
    return {trial for trial, seen in files.items() if seen.result is not None and trial not in stale}


def _check_result(path: Path, result: Mapping[str, Any]) -> None:
    number = (int, float)
    good = isinstance(result.get("score"), number) and isinstance(result.get("metric"), str)
    metrics = result.get("metrics")
    if not good or not isinstance(metrics, dict) or not all(isinstance(value, number) for value in metrics.values()):
        raise ConfigError(f"{path} has no score, metric and metrics as it should")
