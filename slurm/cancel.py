"""Cancels what waits or runs of a run."""

from __future__ import annotations

from collections.abc import Sequence

from neobert.config import ConfigError
from slurm.backends import get_backend
from slurm.rundir import RunDir
from slurm.state import run_state
from slurm.submissions import InFlight, in_flight, note_cancelled, read_submissions


def cancel_run(run: RunDir, prefixes: Sequence[str] = ()) -> tuple[int, int]:
    """Cancels all array tasks in the queue, or only those of some trials; returns how many waited and how many ran.

    Raises `ConfigError` for a trial that shares its array task with others that were not named.
    """
    flights = in_flight(run, read_submissions(run))
    if prefixes:
        state = run_state(run)
        flights = _of_trials(flights, {state.find(prefix).id for prefix in prefixes})
    for backend in {flight.backend for flight in flights}:
        names = [flight.task.name for flight in flights if flight.backend == backend]
        # Whole jobs where all of them is meant: one word for thousands of tasks.
        jobs = {flight.task.job for flight in flights if flight.backend == backend}
        get_backend(backend, run.path).cancel(names if prefixes else sorted(jobs))
        note_cancelled(run, names)  # what was refused goes on, and nobody must wait for its end
    running = sum(flight.task.state.state != "PENDING" for flight in flights)
    return len(flights) - running, running


def _of_trials(flights: list[InFlight], wanted: set[str]) -> list[InFlight]:
    chosen = [flight for flight in flights if wanted & set(flight.trials)]
    for flight in chosen:
        others = set(flight.trials) - wanted
        if others:
            shared = ", ".join(sorted(others))
            raise ConfigError(f"that trial shares its array task with {shared}: name these with --trial as well")
    return chosen
