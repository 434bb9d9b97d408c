"""What `plan`, `render` and `submit` share: a recipe on a cluster, and the run of it that is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neobert.config import ConfigError, nearest
from slurm.backends import QueuedTask, get_backend
from slurm.cluster import load_profile
from slurm.plan import Plan, Trial, make_plan
from slurm.recipe import Recipe, load_recipe
from slurm.rundir import RunDir, list_runs, new_run
from slurm.state import TrialState, run_state
from slurm.submit import (
    Scripts,
    Submitted,
    choose,
    hand_over,
    in_flight,
    one_at_a_time,
    prepare,
    read_submissions,
    submit,
)


@dataclass(frozen=True)
class Session:
    """A plan, and the run that it continues (`exists`) or would make."""

    recipe: Recipe
    plan: Plan
    run: RunDir
    backend: str

    @property
    def states(self) -> dict[str, TrialState]:
        """The trials of the run so far."""
        return {trial.id: trial for trial in run_state(self.run).trials} if self.run.manifest.exists() else {}

    @property
    def todo(self) -> dict[str, list[Trial]]:
        """What a submission now would run."""
        return choose(self.plan, self.run, self._busy())

    def render(self, stage: str | None, chunk: int) -> str:
        """Writes the run's directory and gives the text of one job script, noted as handed over to the queue."""
        with one_at_a_time(self.run):
            scripts = prepare(self.recipe, self.plan, self.run, self.backend, self.todo)
            if not scripts:
                raise ConfigError("nothing to render: every trial is done or in the queue (--new starts a new run)")
            item = _pick(scripts, stage)
            texts = {part.number: (part, text) for part, text in item.texts}
            if chunk not in texts:
                raise ConfigError(f"--chunk {chunk}: stage {item.job.stage.name} has the scripts 0 to {len(texts) - 1}")
            part, text = texts[chunk]
            hand_over(self.run, item.job, part)
            return text

    def submit(self) -> list[Submitted]:
        """Queues what is to be run."""
        backend = get_backend(self.backend, self.run.path)
        with one_at_a_time(self.run):
            busy = self._busy()
            todo = choose(self.plan, self.run, busy)
            scripts = prepare(self.recipe, self.plan, self.run, self.backend, todo)
            return submit(self.run, scripts, backend, self._queued_jobs(busy))

    def _busy(self) -> dict[str, QueuedTask]:
        return in_flight(self.run, read_submissions(self.run))

    def _queued_jobs(self, busy: dict[str, QueuedTask]) -> dict[str, list[str]]:
        """The jobs of earlier submissions that still wait or run, by stage."""
        return {
            stage.name: sorted({busy[trial.id].key[0] for trial in stage.trials if trial.id in busy})
            for stage in self.plan.stages
        }


def open_session(
    recipe: str, overrides: tuple[str, ...] = (), unset: tuple[str, ...] = (), cluster: str = "local",
    run_name: str | None = None, new: bool = False, runs: Path = Path("runs"), backend: str | None = None,
) -> Session:  # fmt: skip
    """Reads recipe and profile, makes the plan, and finds the run; raises `ConfigError`."""
    loaded = load_recipe(recipe, overrides, unset)
    profile = load_profile(cluster)
    plan = make_plan(loaded, cluster, profile)
    runs = Path.cwd() / runs
    earlier = list_runs(runs, plan.name)
    if run_name is not None:
        if new and any(run.path.name == run_name for run in earlier):
            raise ConfigError(f"--new: the run '{run_name}' exists already")
        run = RunDir(runs / plan.name / run_name)
    elif earlier and not new:
        run = earlier[-1]
    else:
        run = new_run(runs, plan.name)
    return Session(loaded, plan, run, backend or profile.backend)


def _pick(scripts: list[Scripts], stage: str | None) -> Scripts:
    names = [item.job.stage.name for item in scripts]
    if stage is None and len(scripts) == 1:
        return scripts[0]
    if stage is None:
        raise ConfigError(f"there is a script for each stage: choose one with --stage ({', '.join(names)})")
    if stage not in names:
        raise ConfigError(f"--stage {stage}: there is nothing to run in a stage of that name{nearest(stage, names)}")
    return scripts[names.index(stage)]
