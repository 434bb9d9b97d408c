"""Cancels what waits or runs of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from neobert.config import ConfigError
from slurm.backends import get_backend
from slurm.inputs import stage_needs
from slurm.rundir import RunDir, read_jsonl
from slurm.state import run_state
from slurm.submissions import InFlight, Ledger, by_owner, in_flight, note_cancelled
from slurm.user import user_name


@dataclass(frozen=True)
class Cancelled:
    """How many array tasks were cancelled, and how many of them ran, or only waited for others of them."""

    tasks: int = 0
    running: int = 0
    dependent: int = 0


def cancel_run(run: RunDir, prefixes: Sequence[str] = ()) -> Cancelled:
    """Cancels all array tasks in the queue, or those of some trials and what waits for these.

    Raises `ConfigError` for a trial that shares its array task with others that were not named.
    """
    flights = in_flight(Ledger(run))
    dependent: list[InFlight] = []
    if prefixes:
        state = run_state(run)
        chosen = _of_trials(flights, {state.find(prefix).id for prefix in prefixes})
        dependent = _waiting_for(run, chosen, flights)
        flights = [*chosen, *dependent]
    for owner, tasks in reversed(by_owner(flights)):
        _cancel(run, owner, tasks, whole_jobs=not prefixes)
    running = sum(flight.task.state.state != "PENDING" for flight in flights)
    return Cancelled(len(flights), running, len(dependent))


def _cancel(run: RunDir, owner: str, flights: Iterable[InFlight], whole_jobs: bool) -> None:
    by_backend: dict[str, list[InFlight]] = {}
    for flight in flights:
        by_backend.setdefault(flight.backend, []).append(flight)
    for backend, tasks in by_backend.items():
        names = [flight.task.name for flight in tasks]
        # Whole jobs where all of them is meant: one word for thousands of tasks.
        jobs = sorted({flight.task.job for flight in tasks})
        try:
            get_backend(backend, run.path).cancel(jobs if whole_jobs else names)
        except ConfigError as error:
            if owner in ("", user_name()):
                raise
            raise ConfigError(f"{', '.join(jobs)} of {owner} cannot be cancelled by {user_name()}: {error}") from None
        note_cancelled(run, names)  # what was refused goes on, and nobody must wait for its end


def _of_trials(flights: list[InFlight], wanted: set[str]) -> list[InFlight]:
    chosen = [flight for flight in flights if wanted & set(flight.trials)]
    for flight in chosen:
        others = set(flight.trials) - wanted
        if others:
            shared = ", ".join(sorted(others))
            raise ConfigError(f"that trial shares its array task with {shared}: name these with --trial as well")
    return chosen


def _waiting_for(run: RunDir, chosen: Collection[InFlight], flights: Iterable[InFlight]) -> list[InFlight]:
    """The waiting tasks of stages that need what is cancelled: they would start only to find that it is not there."""
    stages = {flight.stage for flight in chosen}
    for stage, needs in stage_needs(run, read_jsonl(run.manifest)).items():
        stages |= {stage} if stages.intersection(needs) else set()
    dependents = stages - {flight.stage for flight in chosen}
    return [
        flight for flight in flights
        if flight.stage in dependents and flight.task.state.state == "PENDING" and flight not in chosen
    ]  # fmt: skip
