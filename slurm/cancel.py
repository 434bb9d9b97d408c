"""Cancels what waits or runs of a run."""

from __future__ import annotations

from collections.abc import Sequence

from slurm.backends import get_backend
from slurm.logs import match
from slurm.rundir import RunDir
from slurm.state import run_state
from slurm.submit import in_flight, read_submissions


def cancel_run(run: RunDir, prefixes: Sequence[str] = ()) -> int:
    """Cancels all array tasks in the queue, or only those of some trials; returns how many."""
    submissions = read_submissions(run)
    busy = in_flight(run, submissions)
    if prefixes:
        state = run_state(run)
        wanted = {match(state, prefix).id for prefix in prefixes}
        busy = {trial: task for trial, task in busy.items() if trial in wanted}
    for name in {job.backend for job in submissions}:
        jobs = {job.id for job in submissions if job.backend == name}
        tasks = sorted({task.key for task in busy.values() if task.key[0] in jobs})
        if tasks:
            backend = get_backend(name, run.path)
            if prefixes:
                backend.cancel([], tasks)
            else:
                backend.cancel(sorted({job for job, _ in tasks}))
    return len({task.key for task in busy.values()})
