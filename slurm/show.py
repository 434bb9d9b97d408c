"""What the commands print: tables and lines for people, made with rich."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from slurm import columns
from slurm.columns import Column
from slurm.draw import fitted, whole, wrapped
from slurm.plan import Plan, Stage, Trial, image_path
from slurm.results import INTERVAL, Table, cell, doubts_about, notes_on, value_of
from slurm.schema import slurm_time
from slurm.state import RunState, State, TrialState
from slurm.wrapping import clean

COLOURS = {
    State.DONE: "green", State.RUNNING: "cyan", State.PENDING: "yellow", State.REQUEUED: "yellow", State.FAILED: "red",
    State.TIMEOUT: "red", State.OOM: "red", State.PREEMPTED: "magenta", State.CANCELLED: "magenta", State.NEW: "dim",
    State.BLOCKED: "magenta", State.STALE: "magenta", State.UNKNOWN: "red",
}  # fmt: skip
URGENCY = {"red": 0, "magenta": 0, "cyan": 1, "yellow": 2, "dim": 3, "green": 3}
MAX_ROWS = 40
ENDLESS = 1_000_000
"""Width of a pipe or a file: every line stays whole."""
BAR = 10  # cells
FIRST = 1000  # the rank of columns that are dropped before any metric of a trial

IMPORTANT = ("stage", "trial", "state", "metric", "pairs", "score", "mean", "difference", INTERVAL, "p", "missing")
LESS = ("done", "mean_a", "mean_b", "wins", "losses", "ties", "baseline", "sd", "best", "median", "seconds")
"""Columns of results that are always shown, and those that are dropped where there is no room, the last one first."""


def console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; a file or pipe gets whole lines, with colours too if FORCE_COLOR asks for them."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal else ENDLESS
    out = Console(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)
    if not is_terminal:
        return out
    if out.is_dumb_terminal or {"COLUMNS", "LINES"} & os.environ.keys():  # rich takes 0 for a width, and 80 for dumb
        out.size = shutil.get_terminal_size()
    return out


def redraws(out: Console) -> bool:
    """Return whether lines that were printed can be printed over."""
    return out.width < ENDLESS and out.is_interactive


@dataclass(frozen=True)
class Sheet:
    """A table that fits the terminal that it is printed on; `more` says how to see the columns that do not."""

    columns: tuple[Column, ...]
    more: str = "use a wider terminal"

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= ENDLESS:
            yield from whole(self.columns)
        else:
            yield from fitted(self.columns, options.max_width, self.more)


@dataclass(frozen=True)
class Prose:
    """A line of words that may be wider than the terminal; numbers and names in it are broken last of all."""

    text: Text

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> RenderResult:
        yield from [self.text] if options.max_width >= ENDLESS else wrapped(self.text, options.max_width)


def prose(text: str, style: str = "") -> Prose:
    """A message."""
    return Prose(Text(clean(text), style))


def results_view(table: Table) -> Sheet:
    """Scores of a run, its trials, or the comparison of two runs."""
    shown = tuple(_result(table, place) for place in range(len(table.columns)))
    return Sheet(shown, "use a wider terminal or --format csv")


def _result(table: Table, place: int) -> Column:
    name, values = table.columns[place], [row[place] for row in table.rows]
    is_metric = name in table.columns[:place] or name not in {*table.keys, *IMPORTANT, *LESS}
    if name in table.keys and not is_metric:
        return columns.axis(name, values)
    if any(isinstance(value, str) for value in values):
        return columns.messages(name, values) if name == "missing" else columns.names(name, values, _rank(name))
    return columns.measured(name, values, place if is_metric else _rank(name), "±" if name == INTERVAL else "")


def _rank(name: str) -> int:
    return FIRST + LESS.index(name) if name in LESS else 0


def plan_view(plan: Plan, todo: dict[str, list[Trial]], states: dict[str, TrialState], every: bool) -> Group:
    """Stages, trials, resources, and what would be skipped."""
    parts: list[Any] = []
    for stage in plan.stages:
        parts.append(Prose(_stage_line(plan, stage)))
        shown = stage.trials if every else stage.trials[:MAX_ROWS]
        parts.append(Sheet(_plan_columns(stage, shown, todo[stage.name], states)))
        if len(shown) < len(stage.trials):
            parts.append(prose(f"… and {len(stage.trials) - len(shown)} more trials (--all shows them)"))
    total = sum(len(trials) for trials in todo.values())
    count = len(plan.trials)
    hours = sum(stage.gpu_hours / len(stage.trials) * len(todo[stage.name]) for stage in plan.stages)
    parts.append(prose(
        f"{_count(count, 'trial')}: {total} to run, {count - total} skipped; at most {hours:,.1f} GPU-hours "
        f"on cluster '{plan.cluster}' ({plan.profile.backend})"
    ))  # fmt: skip
    return Group(*parts)


def _plan_columns(
    stage: Stage, trials: Sequence[Trial], todo: Sequence[Trial], states: dict[str, TrialState]
) -> tuple[Column, ...]:
    wanted = {trial.id for trial in todo}
    notes = [_plan_note(trial.id in wanted, states.get(trial.id)) for trial in trials]
    return (
        columns.names("trial", [trial.id for trial in trials]),
        *(columns.axis(axis, [value_of(trial.point, axis) for trial in trials]) for axis in stage.axes),
        columns.names("", [note for note, _ in notes], styles=[style for _, style in notes]),
    )


def _plan_note(wanted: bool, state: TrialState | None) -> tuple[str, str]:
    """Return what a submission would do with a trial, and the colour of that."""
    note, style = ("to run", "") if wanted else ("skipped", "dim")
    if state is None or state.state is State.NEW:
        return note, style
    return f"{note}: {state.state}", COLOURS[state.state]


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


def status_view(state: RunState, every: bool = False, rows: int | None = None) -> Group:
    """Show how far a run is: a count of states, and the trials that are worth a look.

    With `rows`, at most so many trials: those that need attention, then those that run, then the others.
    """
    counts = state.counts
    parts: list[Any] = [prose(str(state.run.path), "bold")]
    line = Text(f"{_count(len(state.trials), 'trial')}: ")
    for number, kind in enumerate(kind for kind in State if counts[kind]):
        line.append(", " if number else "").append(f"{counts[kind]} {kind}", style=COLOURS[kind])
    parts.append(Prose(line))
    shown = _worth_a_look(state, every)
    if rows is not None:
        shown = _most_urgent(shown, rows)
    if shown:
        parts.append(Sheet(_status_columns(shown, len({trial.stage for trial in state.trials}) > 1)))
    if len(shown) < len(state.trials):
        how = "--all shows them" if rows is None else "`recipe status --all` shows them"
        parts.append(prose(f"… and {len(state.trials) - len(shown)} more trials ({how})"))
    seen = {trial.id for trial in shown}
    hidden = notes_on([trial for trial in state.trials if trial.id not in seen])
    parts += [prose(text, "yellow") for text in (state.warning, *state.notes, *hidden) if text]
    return Group(*parts)


@dataclass(frozen=True)
class Screenful:
    """The status of a run with as many trials as a terminal has lines for."""

    state: RunState
    every: bool

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> RenderResult:
        fewest, most = 0, min(len(self.state.trials), options.size.height)
        while fewest < most:
            rows = (fewest + most + 1) // 2
            lines = out.render_lines(status_view(self.state, self.every, rows), options, pad=False)
            fewest, most = (rows, most) if len(lines) <= options.size.height else (fewest, rows - 1)
        yield status_view(self.state, self.every, fewest)


def _worth_a_look(state: RunState, every: bool) -> list[TrialState]:
    quiet = {State.DONE, State.NEW, State.PENDING} if len(state.trials) > MAX_ROWS and not every else set()
    shown = [trial for trial in state.trials if trial.state not in quiet]
    return shown if every else shown[:MAX_ROWS]


def _most_urgent(trials: Sequence[TrialState], rows: int) -> list[TrialState]:
    """Choose so many trials; they keep their order."""
    urgent = sorted(trials, key=lambda trial: URGENCY[COLOURS[trial.state]])[:rows]
    chosen = {trial.id for trial in urgent}
    return [trial for trial in trials if trial.id in chosen]


def _status_columns(trials: Sequence[TrialState], stages: bool) -> tuple[Column, ...]:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    bars = list(map(_bar, trials))
    return (
        columns.names("trial", [trial.id for trial in trials]),
        *([columns.names("stage", [trial.stage for trial in trials])] if stages else []),
        *(columns.axis(key, [value_of(trial.point, key) for trial in trials], rank=1) for key in keys),
        columns.names("state", [trial.state for trial in trials], styles=[COLOURS[trial.state] for trial in trials]),
        columns.names("progress", bars, rank=2, styles=["cyan"] * len(bars)),
        columns.messages("", [_note(trial) for trial in trials]),
    )


def _bar(trial: TrialState) -> str:
    total = trial.progress.get("total_steps")
    if trial.state is not State.RUNNING or not total:
        return ""
    done = min(BAR, BAR * trial.progress["step"] // total)
    return "━" * done + "─" * (BAR - done)


def _note(trial: TrialState) -> str:
    if trial.state is State.DONE:
        return "; ".join([f"{trial.result['metric']} {cell(trial.result['score'])}", *doubts_about(trial)])
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
