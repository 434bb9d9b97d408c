"""Recipes from Python, for notebooks and scripts of one's own.

from slurm import Recipe

jobs = Recipe.load("recipes/demo.yaml", cluster="a100").submit(backend="submitit")
scores = [job.result()["score"] for job in jobs]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm.plan import Plan
from slurm.rundir import RunDir
from slurm.session import Session, open_session
from slurm.submissions import Ledger


@dataclass(frozen=True)
class Recipe:
    """A recipe on a cluster, checked and expanded. Methods raise `neobert.config.ConfigError` for a user's mistake."""

    session: Session

    @classmethod
    def load(
        cls, path: str | Path, *, overrides: Iterable[str] = (), cluster: str = "local", run: str | None = None,
        new: bool = False, runs: Path = Path("runs"), code: str = "snapshot",
    ) -> Recipe:  # fmt: skip
        """Reads the recipe; the arguments are those of the command `recipe submit` (`overrides`: `a.b=value` texts)."""
        return cls(open_session(str(path), tuple(overrides), (), cluster, run, new, runs, code=code))

    @property
    def plan(self) -> Plan:
        """Its stages and trials."""
        return self.session.plan

    def submit(self, backend: str | None = None) -> list[Any] | RunDir:
        """Queues what is neither done nor queued, on the cluster profile's backend or on another one.

        With `submitit`, returns a `submitit.Job` for each trial, in the plan's order: also for those that an earlier
        call has submitted, so that a notebook's cell can be run again. `job.result()` waits for it and gives the
        content of its `result.json`. Otherwise returns the run's directory.
        """
        session = self.session.on(backend) if backend else self.session
        run, _ = session.submit()
        if session.backend != "submitit":
            return run
        from slurm.backends.submitit import job_of

        trials = [trial.id for _, trial in session.plan.trials]
        given = Ledger(run, "submitit").last_given(trials)
        return [job_of(run, given[trial]) for trial in trials if trial in given]
