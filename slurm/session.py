"""What `plan`, `render` and `submit` share: a recipe on a cluster, and the run of it that is meant."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from neobert.config import ConfigError, Problem, nearest, validate
from slurm.backends import Backend, get_backend
from slurm.cluster import Profile, load_profile
from slurm.disk import report
from slurm.disk.estimate import estimate
from slurm.done import done_trials
from slurm.inputs import check_needs
from slurm.kept import lost_checkpoints
from slurm.plan import Plan, Trial, image_path, make_plan, missing_paths, missing_secrets
from slurm.provenance import CODE_OF_IMAGE
from slurm.recipe import Recipe, load_recipe, split_key
from slurm.rundir import EXEC, RunDir, access, list_runs, locked, new_run, read_json
from slurm.schema import SHARED, check_name
from slurm.state import RunState, run_state
from slurm.submissions import InFlight, Ledger, Submitted, by_owner, by_trial, check_not_lost, hand_over, in_flight
from slurm.submit import Scripts, make_job, manifest_rows, submit, write_run

CODES = ("snapshot", "image")
"""What trials run: the code that lies here now, or that which their image holds."""


@dataclass(frozen=True)
class Session:
    """A plan, and which run of it is meant: the one of that name, or the newest, or a new one."""

    recipe: Recipe
    plan: Plan
    runs: Path
    run_name: str | None
    new: bool
    backend: str
    image_code: bool = False
    again: bool = False
    """Whether it takes up a run as that was submitted, with changes for this time only."""
    only: frozenset[str] = field(default_factory=frozenset)
    """Ids of the trials to submit; empty: all that are neither done nor in flight."""

    def find_run(self) -> RunDir:
        """The run to continue or to make; raises `ConfigError` when a new one is asked for under a taken name."""
        earlier = list_runs(self.runs, self.plan.name)
        if self.run_name is not None:
            if self.new and any(run.path.name == self.run_name for run in earlier):
                raise ConfigError(f"--new: the run '{self.run_name}' exists already")
            return RunDir(self.runs / self.plan.name / self.run_name)
        return earlier[-1] if earlier and not self.new else new_run(self.runs, self.plan.name)

    def look(self) -> tuple[RunState, dict[str, list[Trial]]]:
        """The run so far, and what a submission now would run."""
        run = self.find_run()
        manifest_rows(self.plan, run)  # raises where a submission would
        state = run_state(run) if run.manifest.exists() else RunState(run, ())
        taken = {trial.id for trial in state.trials if trial.taken}
        return state, {stage.name: [t for t in stage.trials if t.id not in taken] for stage in self.plan.stages}

    def render(self, stage: str | None, chunk: int) -> tuple[RunDir, str, dict[str, list[str]]]:
        """Writes the run's directory; gives it, the text of one job script, and what the script has to wait for.

        That is, the stages that it needs and that are not done, each with its jobs in the queue. The script is noted as
        handed over: piped to sbatch, its job is found in the queue.
        """
        if self.backend == "submitit":
            return self.on("sbatch").render(stage, chunk)  # outside of submitit, the script itself must requeue
        with self._locked() as run:
            _, flights, todo = self._todo(run)
            scripts = self._write(run, todo)
            if not scripts:
                raise ConfigError("nothing to render: every trial is done or in the queue (--new starts a new run)")
            item = _pick(scripts, stage)
            texts = {part.number: (part, text) for part, text in item.texts}
            if chunk not in texts:
                raise ConfigError(f"--chunk {chunk}: stage {item.job.stage.name} has the scripts 0 to {len(texts) - 1}")
            part, text = texts[chunk]
            hand_over(run, item.job, part, rendered=True)
            queued = _jobs(flights)
            needs = {name: queued.get(name, []) for name in item.job.stage.needs if todo[name] or name in queued}
            return run, text, needs

    def submit(self) -> tuple[RunDir, list[Submitted]]:
        """Queues what is to be run; gives the run and the new jobs."""
        with self._locked() as run:
            backend, flights, todo = self._todo(run)
            if warning := report.warning(estimate(self.plan, todo, self.runs)):
                print(f"warning: {warning}", file=sys.stderr)
            scripts = self._write(run, todo)
            flights = _release(flights, scripts, backend)
            return run, submit(run, scripts, backend, _jobs(flights))

    def on(self, backend: str) -> Session:
        """The same, submitted another way."""
        return replace(self, backend=backend)

    def check(self) -> None:
        """Raises `ConfigError` for what can be known to be missing before anything is written or queued."""
        problems = [*missing_paths(self.plan, self.recipe), *missing_secrets(self.plan, self.recipe)]
        if not self.again:  # then it runs code that may keep all
            problems += lost_checkpoints(self.plan, self.recipe)
        if self.image_code:
            problems += [
                Problem(("stages", stage.name, "image"), "--code image: this stage runs in no image")
                for stage in self.plan.stages
                if image_path(stage, self.plan.profile) is None
            ]
        if problems:
            raise ConfigError(problems)

    def _write(self, run: RunDir, todo: dict[str, list[Trial]]) -> list[Scripts]:
        return write_run(self.recipe, self.plan, run, self.backend, todo, self.image_code, self.again)

    @contextmanager
    def _locked(self) -> Iterator[RunDir]:
        """The run, while no other submission of this recipe is under way. What is wrong shows before a file is made."""
        self.check()
        backend = get_backend(self.backend, Path())
        code = Path("code.zip")
        run = RunDir(self.runs / self.plan.name / "run")
        backend.check([make_job(self.plan, s, len(s.trials), run, self.backend, code) for s in self.plan.stages])
        # submitit starts its jobs from pickles, which are code: only the user may write them.
        with access(self.plan.profile.runs_mode, self.backend != "submitit"), locked(self.runs / self.plan.name):
            yield self.find_run()

    def _todo(self, run: RunDir) -> tuple[Backend, list[InFlight], dict[str, list[Trial]]]:
        """The backend, what is in flight, and the trials of each stage that are neither done nor in flight.

        Raises `ConfigError` if some of these need trials that are not there, and are not queued either.
        """
        flights = _settled(run)
        busy = by_trial(flights)
        there = done_trials(run) | busy.keys()
        todo = {
            stage.name: [t for t in stage.trials if t.id not in there and (not self.only or t.id in self.only)]
            for stage in self.plan.stages
        }
        check_needs(run, self.plan, todo, there)
        _requeue_dependents(self.plan, flights, todo)
        return get_backend(self.backend, run.path), flights, todo


def _settled(run: RunDir) -> list[InFlight]:
    """What is in flight. A cancelled task that still saves its checkpoint is waited for, so that it is not left out.

    Raises `ConfigError` for a job of which nobody knows what it runs: its trials would be queued twice.
    """
    check_not_lost(run)
    waiting = False
    while True:
        flights = in_flight(Ledger(run))
        ending = [flight for flight in flights if flight.cancelled]
        if not ending:
            break
        if not waiting:
            print(f"waiting for {len(ending)} cancelled array tasks to end", file=sys.stderr)
            waiting = True
        time.sleep(0.5)
    unlisted = sorted({flight.task.job for flight in flights if flight.unlisted})
    if unlisted:
        raise ConfigError(
            f"which trials the jobs {', '.join(unlisted)} in the queue run is not known: their list in "
            f"{run.path / 'stages'} is gone, or their comments were changed. Wait until they have ended, or "
            "end them with `recipe cancel`"
        )
    return flights


def _requeue_dependents(plan: Plan, flights: list[InFlight], todo: dict[str, list[Trial]]) -> None:
    """A stage that waits for trials which are now run again must wait for their new jobs: it is queued anew."""
    for stage in plan.stages:
        if any(todo[need] for need in stage.needs):
            waiting = {id for f in flights if f.task.state.state == "PENDING" for id in f.trials}
            chosen = {trial.id for trial in todo[stage.name]}
            todo[stage.name] = [trial for trial in stage.trials if trial.id in waiting or trial.id in chosen]


def _release(flights: list[InFlight], scripts: list[Scripts], backend: Backend) -> list[InFlight]:
    """Takes the waiting tasks out of the queue whose trials are about to be queued anew; gives what is left.

    Those of others go first: where that is refused, nothing has changed.
    """
    again = {trial.id for item in scripts for trial in item.trials}
    released = [flight for flight in flights if again & set(flight.trials)]
    for _, tasks in by_owner(released):
        backend.cancel([flight.task.name for flight in tasks])
    return [flight for flight in flights if flight not in released]


def _jobs(flights: list[InFlight]) -> dict[str, list[str]]:
    """The jobs of each stage that are in the queue."""
    jobs: dict[str, set[str]] = {}
    for flight in flights:
        jobs.setdefault(flight.stage, set()).add(flight.task.job)
    return {stage: sorted(ids) for stage, ids in jobs.items()}


def open_session(
    recipe: str, overrides: tuple[str, ...] = (), unset: tuple[str, ...] = (), cluster: str = "local",
    run_name: str | None = None, new: bool = False, runs: Path = Path("runs"), backend: str | None = None,
    code: str = "snapshot",
) -> Session:  # fmt: skip
    """Reads recipe and profile and makes the plan; raises `ConfigError`."""
    loaded = load_recipe(recipe, overrides, unset)
    profile = load_profile(cluster)
    plan = make_plan(loaded, cluster, profile)
    if run_name is not None:
        try:
            check_name(run_name)
        except ValueError as error:
            raise ConfigError(f"--run: {error}") from None
        if run_name == EXEC:
            raise ConfigError(f"--run {EXEC}: that directory is for what `recipe exec` tries out; choose another name")
    if code not in CODES:
        raise ConfigError(f"code: expected {' or '.join(map(repr, CODES))}, found {code!r}")
    return Session(loaded, plan, Path.cwd() / runs, run_name, new, backend or profile.backend, code == "image")


def reopen(run: RunDir, overrides: tuple[str, ...] = (), only: frozenset[str] = frozenset()) -> Session:
    """A run as it was submitted, to submit what is left of it; the current directory must be that of the submission.

    Raises `ConfigError`.
    """
    check_not_lost(run)
    before = read_json(run.provenance)
    jobs = Ledger(run).jobs
    if before is None or not jobs:
        raise ConfigError(f"{run.path} was never submitted")
    recipe = load_recipe(run.recipe, _in_every_stage(overrides, run))
    if run.path.parent.name != recipe.spec.name:
        raise ConfigError(
            f"{run.path} is a run of '{recipe.spec.name}', and was moved out of the directory of that name: move it to "
            f"{run.path.parent / recipe.spec.name / run.path.name}"
        )
    profile = validate(Profile, read_json(run.profile) or {}, lambda _: str(run.profile))  # filled in already
    plan = make_plan(recipe, before["cluster"], profile)
    return Session(
        recipe=recipe,
        plan=plan,
        runs=run.path.parents[1],
        run_name=run.path.name,
        new=False,
        backend=jobs[-1].backend,
        image_code=before["code"] == CODE_OF_IMAGE,
        again=True,
        only=only,
    )


def _in_every_stage(overrides: tuple[str, ...], run: RunDir) -> tuple[str, ...]:
    """`resources.mem=32G` for each stage: in a run's recipe, what the stages share stands in each of them."""
    stages = load_recipe(run.recipe).spec.stages
    return tuple(
        text
        for override in overrides
        for text in (
            [f"stages.{stage}.{override.strip()}" for stage in stages]
            if split_key(override.partition("=")[0])[0] in SHARED
            else [override]
        )
    )


def _pick(scripts: list[Scripts], stage: str | None) -> Scripts:
    names = [item.job.stage.name for item in scripts]
    if stage is None and len(scripts) == 1:
        return scripts[0]
    if stage is None:
        raise ConfigError(f"there is a script for each stage: choose one with --stage ({', '.join(names)})")
    if stage not in names:
        raise ConfigError(f"--stage {stage}: there is nothing to run in a stage of that name{nearest(stage, names)}")
    return scripts[names.index(stage)]
