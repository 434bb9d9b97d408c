"""What the commands print: tables and lines for people, made with rich."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from slurm.plan import Plan, Stage, Trial, image_path
from slurm.results import Table, cell, key_cell
from slurm.schema import slurm_time
from slurm.state import RunState, State, TrialState

COLOURS = {
    State.DONE: "green", State.RUNNING: "cyan", State.PENDING: "yellow", State.REQUEUED: "yellow", State.FAILED: "red",
    State.TIMEOUT: "red", State.OOM: "red", State.PREEMPTED: "magenta", State.CANCELLED: "magenta", State.NEW: "dim",
    State.BLOCKED: "magenta", State.STALE: "yellow", State.UNKNOWN: "red",
}  # fmt: skip
MAX_ROWS = 40


def console(**options: Any) -> Console:
    """A terminal as wide as it is; a file or pipe gets whole lines, never cut to some width."""
    out = Console(highlight=False, soft_wrap=False, **options)
    return out if out.is_terminal else Console(highlight=False, width=500, **options)


def as_rich(table: Table) -> RichTable:
    out = _table(*table.columns)
    for row in table.rows:
        out.add_row(*map(Text, table.cells(row)))
    for column, name in zip(out.columns, table.columns, strict=True):
        values = [row[table.columns.index(name)] for row in table.rows]
        if any(isinstance(value, int | float) for value in values):
            column.justify = "right"
    return out


def plan_view(plan: Plan, todo: dict[str, list[Trial]], states: dict[str, TrialState], every: bool) -> Group:
    """Stages, trials, resources, and what would be skipped."""
    parts: list[Any] = []
    for stage in plan.stages:
        parts.append(_stage_line(plan, stage))
        wanted = {trial.id for trial in todo[stage.name]}
        table = _table("trial", *stage.axes, "")
        shown = stage.trials if every else stage.trials[:MAX_ROWS]
        for trial in shown:
            state = states.get(trial.id)
            note = Text("to run") if trial.id in wanted else Text("skipped", style="dim")
            if state is not None and state.state is not State.NEW:
                note = Text(f"{note}: {state.state}", style=COLOURS[state.state])
            table.add_row(trial.id, *(key_cell(trial.point.get(axis)) for axis in stage.axes), note)
        parts.append(table)
        if len(shown) < len(stage.trials):
            parts.append(Text(f"… and {len(stage.trials) - len(shown)} more trials (--all shows them)"))
    total = sum(len(trials) for trials in todo.values())
    count = len(plan.trials)
    hours = sum(stage.gpu_hours / len(stage.trials) * len(todo[stage.name]) for stage in plan.stages)
    parts.append(Text(
        f"{_count(count, 'trial')}: {total} to run, {count - total} skipped; at most {hours:,.1f} GPU-hours "
        f"on cluster '{plan.cluster}' ({plan.profile.backend})"
    ))  # fmt: skip
    return Group(*parts)


def _stage_line(plan: Plan, stage: Stage) -> Text:
    r = stage.resources
    gpus = f", {_count(r.gpus_per_node, 'GPU')} a node" if r.gpus_per_node else ""
    image = image_path(stage, plan.profile)
    parts = [
        f"neobert {stage.task}",
        f"{_count(r.nodes, 'node')}{gpus}, {_count(r.cpus, 'CPU')}, {r.mem}, {slurm_time(r.time)}",
        f"image {image}" if image else "no container",
    ]
    if stage.array.pack > 1:
        parts.append(f"{stage.array.pack} trials an array task")
    if stage.array.parallel:
        parts.append(f"at most {stage.array.parallel} array tasks at once")
    if stage.needs:
        parts.append(f"after {', '.join(stage.needs)}")
    return Text.assemble(("stage " + stage.name, "bold"), "  ", " · ".join(parts))


def status_view(state: RunState, every: bool = False) -> Group:
    """How far a run is: a count of states, and the trials that are worth a look."""
    counts = state.counts
    parts: list[Any] = [Text(str(state.run.path), style="bold")]
    line = Text(f"{_count(len(state.trials), 'trial')}: ")
    for number, kind in enumerate(kind for kind in State if counts[kind]):
        line.append(", " if number else "").append(f"{counts[kind]} {kind}", style=COLOURS[kind])
    parts.append(line)
    quiet = {State.DONE, State.NEW, State.PENDING} if len(state.trials) > MAX_ROWS and not every else set()
    shown = [trial for trial in state.trials if trial.state not in quiet]
    limit = len(shown) if every else MAX_ROWS
    if shown:
        parts.append(_trials(shown[:limit], len({trial.stage for trial in state.trials}) > 1))
    if len(shown) > limit or len(shown) < len(state.trials):
        hidden = len(state.trials) - min(len(shown), limit)
        parts.append(Text(f"… and {hidden} more trials (--all shows them)"))
    parts += [Text(text, style="yellow") for text in (state.warning, *state.notes) if text]
    return Group(*parts)


def _trials(trials: Sequence[TrialState], stages: bool) -> RichTable:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    table = _table("trial", *(["stage"] if stages else []), *keys, "state", "progress", "")
    for trial in trials:
        table.add_row(
            trial.id, *([trial.stage] if stages else []), *(key_cell(trial.point.get(key)) for key in keys),
            Text(str(trial.state), style=COLOURS[trial.state]), _progress(trial), Text(_note(trial)),
        )  # fmt: skip
    return table


def _progress(trial: TrialState) -> ProgressBar | Text:
    if trial.state is State.RUNNING and trial.progress.get("total_steps"):
        return ProgressBar(total=trial.progress["total_steps"], completed=trial.progress["step"], width=20)
    return Text("")


def _note(trial: TrialState) -> str:
    if trial.state is State.DONE:
        return f"{trial.result['metric']} {cell(trial.result['score'])}"
    if trial.state is not State.RUNNING:
        return trial.detail
    told = trial.progress
    parts = [f"step {told['step']}/{told['total_steps']}"] if told.get("total_steps") else ["starting"]
    if told.get("loss") is not None:
        parts.append(f"loss {told['loss']:.3f}")
    if told.get("samples_per_second"):
        parts.append(f"{told['samples_per_second']:.0f} samples/s")
    if told.get("seconds_left") is not None:
        parts.append(f"{clock(told['seconds_left'])} left")
    if told.get("time") and time.time() - told["time"] > 300:
        parts.append(f"no news for {clock(time.time() - told['time'])}")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """`3 s`, `12 min`, `4.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _table(*columns: str) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column in ("trial", "state"))
    return table
