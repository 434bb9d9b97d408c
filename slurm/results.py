"""The results of a run: a row for each point of the grid, with the mean over its seeds and how far to trust it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from neobert.config import ConfigError, greater_is_better, nearest
from slurm.inference import summarise
from slurm.state import RunState, TrialState

SEED = "seed"
MISSING = "—"


class _Null(Enum):
    """A setting that is null, in a table where None means that there is no value."""

    NULL = "null"

    def __str__(self) -> str:
        return str(self.value)


NULL = _Null.NULL
NAMED = 5
"""Trials that a note names."""
INTERVAL = "ci95"
"""The column with half the width of a confidence interval."""


@dataclass
class Group:
    """The trials that differ in their seed alone."""

    stage: str
    point: dict[str, Any]
    trials: list[TrialState] = field(default_factory=list)

    def metrics(self) -> list[str]:
        """What the trials are scored by: one metric, or the scores have no mean."""
        return list(dict.fromkeys(str(trial.result["metric"]) for trial in self.trials if trial.result))

    def scores(self, metric: str | None = None) -> list[float]:
        """The scores of the trials that are done, or one of their metrics."""
        if metric is None and len(self.metrics()) > 1:
            return []
        found = (score_of(trial, metric) for trial in self.trials)
        return [value for value in found if value is not None]

    def baseline(self) -> float | None:
        found = (trial.result.get("baseline") for trial in self.trials)
        return next((value for value in found if value is not None), None)

    def missing(self, metric: str | None = None) -> str:
        """What became of the trials without a score, or without a metric: `2 failed, 1 running, 1 without score`.

        Of trials that are scored by different metrics, how many are scored by each: `2 by accuracy, 1 by f1`.
        """
        reasons = [reason for trial in self.trials if (reason := why_no_score(trial, metric))]
        if metric is None and len(self.metrics()) > 1:
            reasons += [f"by {trial.result['metric']}" for trial in self.trials if trial.result]
        return ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))


@dataclass(frozen=True)
class Table:
    """Columns and rows; a cell is a text, a number, or None where there is nothing. Keys may be NULL, too."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: tuple[str, ...] = ()  # the columns that hold values of the grid

    def cells(self, row: Sequence[Any]) -> list[str]:
        """A row for reading."""
        return [self._cell(name, value) for name, value in zip(self.columns, row, strict=True)]

    def _cell(self, name: str, value: Any) -> str:
        if name in self.keys:
            return key_cell(value)
        return f"±{cell(value)}" if name == INTERVAL and value is not None else cell(value)


def value_of(point: Mapping[str, Any], key: str) -> Any:
    """The value of an axis at a point: None where the point does not have it, NULL where it is null."""
    return NULL if key in point and point[key] is None else point.get(key)


def score_of(trial: TrialState, metric: str | None = None) -> float | None:
    """The score of a trial, or one of its metrics; None if it is not done, or has no such metric."""
    if not trial.result:
        return None
    value = trial.result["score"] if metric is None else trial.result["metrics"].get(metric)
    return None if value is None else float(value)


def why_no_score(trial: TrialState, metric: str | None = None) -> str:
    """Why `score_of` is None: the state of the trial, or what its result lacks; empty where it has one."""
    if not trial.result:
        return str(trial.state)
    return f"without {metric or 'score'}" if score_of(trial, metric) is None else ""


def check_metric(trials: Iterable[TrialState], metric: str | None, whose: str = "") -> None:
    """Raises `ConfigError` if no trial has the metric."""
    known = {name for trial in trials for name in trial.result.get("metrics", {})}
    if metric is not None and metric not in known:
        raise ConfigError(f"no trial{whose} has the metric '{metric}'{nearest(metric, known)}")


def group(trials: Iterable[TrialState]) -> list[Group]:
    """The trials by stage and point, seeds together, in the order of the grid."""
    groups: dict[str, Group] = {}
    for trial in trials:
        point = {key: value for key, value in trial.point.items() if key != SEED}
        key = json.dumps([trial.stage, point])
        groups.setdefault(key, Group(trial.stage, point)).trials.append(trial)
    return list(groups.values())


def results_table(state: RunState, metric: str | None = None) -> Table:
    """One row for each point of the grid: its keys, the score's name, how many seeds are done, and their statistics."""
    check_metric(state.trials, metric)
    groups = group(state.trials)
    keys = list(dict.fromkeys(key for item in groups for key in item.point))
    stages = ["stage"] if len({item.stage for item in groups}) > 1 else []
    columns = (*stages, *keys, "metric", "done", "mean", INTERVAL, "sd", "median", "best", "baseline", "missing")
    rows = []
    for item in groups:
        scores = item.scores(metric)
        name = metric or next(iter(item.metrics()), "")
        found = summarise(scores, greater_is_better(name))
        rows.append((
            *([item.stage] if stages else []),
            *(value_of(item.point, key) for key in keys),
            name if scores else None,
            f"{len(scores)}/{len(item.trials)}",
            found.mean, found.ci95, found.sd, found.median, found.best,
            item.baseline() if metric is None and scores else None,
            item.missing(metric) or None,
        ))  # fmt: skip
    return _without_empty(Table(columns, tuple(rows), tuple(keys)), ("baseline", "missing"))


def trials_table(state: RunState) -> Table:
    """One row for each trial, with all of its metrics."""
    keys = list(dict.fromkeys(key for trial in state.trials for key in trial.point))
    metrics = list(dict.fromkeys(name for trial in state.trials for name in trial.result.get("metrics", {})))
    columns = ("stage", "trial", *keys, "state", "metric", "score", "baseline", *metrics, "seconds")
    rows = tuple(
        (
            trial.stage, trial.id, *(value_of(trial.point, key) for key in keys), str(trial.state),
            trial.result.get("metric"), trial.result.get("score"), trial.result.get("baseline"),
            *(trial.result.get("metrics", {}).get(name) for name in metrics), trial.result.get("seconds"),
        )
        for trial in state.trials
    )  # fmt: skip
    return Table(columns, rows, tuple(keys))


def doubts_about(trial: TrialState) -> list[str]:
    """What speaks against a result, in short: its warnings up to the first colon, after which they have details."""
    found = trial.result.get("warnings")
    return [str(text).partition(": ")[0] for text in found] if isinstance(found, list) else []


def notes_on(trials: Sequence[TrialState]) -> list[str]:
    """What must be known to read the results: `3 of 9 trials: no better than the majority class (5c1d..., ...)`."""
    of_doubt: dict[str, list[str]] = {}
    for trial in trials:
        for doubt in dict.fromkeys(doubts_about(trial)):
            of_doubt.setdefault(doubt, []).append(trial.id)
    notes = [
        f"{len(ids)} of {len(trials)} trials: {doubt} ({', '.join(ids[:NAMED])}{', ...' if ids[NAMED:] else ''})"
        for doubt, ids in of_doubt.items()
    ]
    mixed = [item for item in group(trials) if len(item.metrics()) > 1]
    if mixed:
        both = " and ".join(mixed[0].metrics())
        notes.append(f"trials of one point are scored by {both}, which have no mean: --metric takes one for all")
    return notes


def _without_empty(table: Table, names: Sequence[str]) -> Table:
    drop = {i for i, name in enumerate(table.columns) if name in names and all(row[i] is None for row in table.rows)}
    keep = [i for i in range(len(table.columns)) if i not in drop]
    columns = tuple(table.columns[i] for i in keep)
    return Table(columns, tuple(tuple(row[i] for i in keep) for row in table.rows), table.keys)


def cell(value: Any) -> str:
    """A cell for reading: four digits are more than the spread over seeds ever justifies. Counts are told in full."""
    if value is None:
        return MISSING
    if isinstance(value, float) and abs(value) >= 1e4 and value.is_integer():
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}"
    return str(value)


def key_cell(value: Any) -> str:
    """A value of the grid, as short as it can be written."""
    return MISSING if value in (None, NULL) else f"{value:.12g}" if isinstance(value, float) else str(value)


def to_csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(["" if value in (None, NULL) else value for value in row] for row in table.rows)
    return out.getvalue()


def to_json(table: Table) -> str:
    rows = [dict(zip(table.columns, map(_without_null, row), strict=True)) for row in table.rows]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _without_null(value: Any) -> Any:
    return None if value is NULL else value


def to_markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |\n"

    rule = "|" + "".join(" --- |" for _ in table.columns) + "\n"
    return line(table.columns) + rule + "".join(line(table.cells(row)) for row in table.rows)


_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
                        "^": r"\textasciicircum{}", MISSING: "---", "±": r"$\pm$"})  # fmt: skip


def to_latex(table: Table) -> str:
    """A `tabular` with booktabs rules."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(text.translate(_LATEX).replace("\n", " ") for text in cells) + r" \\" + "\n"

    numbers = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    head = "\\begin{tabular}{" + "".join("r" if number else "l" for number in numbers) + "}\n\\toprule\n"
    body = line(table.columns) + "\\midrule\n" + "".join(line(table.cells(row)) for row in table.rows)
    return head + body + "\\bottomrule\n\\end{tabular}\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "csv": to_csv, "json": to_json, "markdown": to_markdown, "latex": to_latex,
}  # fmt: skip
