"""Follows a run until all of its trials have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from slurm.plan import label
from slurm.results import cell
from slurm.rundir import RunDir
from slurm.show import Screenful, redraws, status_view
from slurm.state import RunState, State, Verdicts, run_state
from slurm.submissions import read_submissions

FIRST_POLL, SLOWEST_POLL, FACTOR = 1.0, 30.0, 1.25  # seconds; the queue is asked once a poll


def follow(run: RunDir, console: Console, *, every: bool = False, quiet: bool = False) -> bool:
    """Shows progress until nothing waits or runs any more; returns whether every trial is done.

    On a terminal the table is redrawn in place; elsewhere a line is printed whenever a trial changes its state.
    """
    if redraws(console) and not quiet:
        with Live(console=console, refresh_per_second=1) as live:  # it may have another size by now
            for state in _polls(run):
                live.update(Screenful(state, every), refresh=True)
            live.update(status_view(state, every))  # the last one stays, and may be longer than the screen
    else:
        known: dict[str, State] | None = None
        warned = ""
        for state in _polls(run):
            if state.warning and state.warning != warned:
                console.print(f"{state.warning}; asking again")
            warned = state.warning
            if not quiet:
                for line in _changes(state, known):
                    console.print(line)
            known = {trial.id: trial.state for trial in state.trials}
    return all(trial.result for trial in state.trials)


def _changes(state: RunState, known: dict[str, State] | None) -> Iterator[str]:
    """A line for each trial that has started or ended since the last look; at first, how things stand."""
    done = state.counts[State.DONE]
    if known is None:
        yield f"{len(state.trials)} trials: " + ", ".join(f"{state.counts[s]} {s}" for s in State if state.counts[s])
        return
    several = len({trial.stage for trial in state.trials}) > 1
    for trial in state.trials:
        if trial.state is not known.get(trial.id) and trial.state is not State.PENDING:
            score = f"{trial.result['metric']} {cell(float(trial.result['score']))}" if trial.result else trial.detail
            what = " ".join(
                [trial.id, *([trial.stage] if several else []), *([label(trial.point)] if trial.point else [])]
            )
            yield f"[{done}/{len(state.trials)} done] {what}: {trial.state} {score}".rstrip()


def _polls(run: RunDir) -> Iterator[RunState]:
    pause = FIRST_POLL
    verdicts: Verdicts = {}
    while True:
        state = run_state(run, verdicts)
        yield state
        if state.ended:
            return
        time.sleep(pause)
        local = all(job.backend == "local" for job in read_submissions(run)[-1:])
        pause = min(pause * FACTOR, FIRST_POLL if local else SLOWEST_POLL)
