"""A plan -> a run directory, job scripts in it, and jobs in a queue."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, dump_yaml
from neobert.config.paths import at_home
from slurm.backends import Backend
from slurm.inputs import list_of, list_path, needed_by
from slurm.plan import Plan, Stage, Trial, image_path
from slurm.provenance import hash_file, left_out, provenance, snapshot_code, submitted_code
from slurm.recipe import Recipe
from slurm.render import Chunk, Job, chunks, enter, render
from slurm.rundir import RunDir, TrialDir, read_jsonl, write_atomically
from slurm.submissions import Submitted, hand_over, note
from slurm.values import escaped


@dataclass(frozen=True)
class Scripts:
    """What one stage gives to the queue."""

    job: Job
    trials: tuple[Trial, ...]
    texts: tuple[tuple[Chunk, str], ...]
    manifest: str
    enter: str | None

    def script(self, chunk: Chunk) -> Path:
        return self.job.directory / ("job.sh" if len(self.texts) == 1 else f"job-{chunk.number}.sh")


def make_job(plan: Plan, stage: Stage, trials: int, run: RunDir, backend: str, code: Path | None) -> Job:
    """A job of a stage, for so many of its trials."""
    needs = list_of(needed_by(plan, stage))
    return Job(
        recipe=plan.name,
        stage=stage,
        profile=plan.profile,
        backend=backend,
        trials=trials,
        run=run.path,
        directory=run.job(stage.name, "0"),
        needs=list_path(run, needs) if needs else None,
        code=code,
        workdir=Path.cwd(),
        python=str(at_home(plan.profile.python)) if plan.profile.python else sys.executable,
    )


def write_run(
    recipe: Recipe, plan: Plan, run: RunDir, backend: str, todo: Mapping[str, list[Trial]], image_code: bool = False,
    again: bool = False,
) -> list[Scripts]:  # fmt: skip
    """Renders all scripts and writes the run's directory; nothing is submitted.

    Trials run the code that lies here now, or with `image_code` that which their image holds. Doing it again with the
    same trials writes the same files. With `again` the recipe, the profile and the code are the run's own, with changes
    for this time only, and are left as they are there. Raises `ConfigError`, or OSError where the directory cannot be
    written.
    """
    rows = manifest_rows(plan, run)
    run.path.mkdir(parents=True, exist_ok=True)
    code = None if image_code else submitted_code(run) if again else snapshot_code(run)
    scripts = [
        _scripts(make_job(plan, stage, len(todo[stage.name]), run, backend, code), tuple(todo[stage.name]), run)
        for stage in plan.stages
        if todo[stage.name]
    ]
    for item in scripts:
        (item.job.directory / "logs").mkdir(parents=True, exist_ok=True)
        if item.enter is not None:
            write_atomically(item.job.entry, item.enter)
        write_atomically(item.job.manifest, item.manifest)
        if item.job.needs is not None:
            item.job.needs.parent.mkdir(exist_ok=True)
            write_atomically(item.job.needs, list_of(needed_by(plan, item.job.stage)))
        for chunk, text in item.texts:
            write_atomically(item.script(chunk), text)
    if not again:
        write_atomically(run.recipe, dump_yaml(_to_be_read_again(recipe)))
        write_atomically(run.profile, plan.profile.model_dump_json(indent=1) + "\n")
    images = {image for stage in plan.stages if (image := image_path(stage, plan.profile)) is not None}
    record = provenance(Path.cwd(), code, sorted(images))
    if note := left_out(record):
        print(f"note: {note}", file=sys.stderr)
    write_atomically(run.provenance, json.dumps({**record, "cluster": plan.cluster}, indent=1) + "\n")
    write_atomically(run.manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return scripts


def _to_be_read_again(recipe: Recipe) -> dict[str, Any]:
    """The recipe as data. Only `config` still holds templates, whose turn comes with each trial."""
    spec = recipe.spec.model_dump(mode="json")
    stages = spec.pop("stages")
    filled = {name: escaped(stage) | {"config": stage["config"]} for name, stage in stages.items()}
    return {**escaped(spec), "stages": filled}


def _scripts(job: Job, trials: tuple[Trial, ...], run: RunDir) -> Scripts:
    # The directory's name is the hash of what is in it, so that an equal submission is recognised as the same.
    texts = [*(render(job, chunk) for chunk in chunks(job)), enter(job) or "", *(trial.id for trial in trials)]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:8]
    job = replace(job, directory=run.job(job.stage.name, digest))
    manifest, entry = "".join(trial.manifest_line(run.path) for trial in trials), enter(job)
    job = replace(job, seals=dict(_seals(job, manifest, entry)))
    return Scripts(job, trials, tuple((chunk, render(job, chunk)) for chunk in chunks(job)), manifest, entry)


def _seals(job: Job, manifest: str, entry: str | None) -> Iterator[tuple[Path, str]]:
    yield job.manifest, hashlib.sha256(manifest.encode()).hexdigest()
    if entry is not None:
        yield job.entry, hashlib.sha256(entry.encode()).hexdigest()
    if job.code is not None:
        yield job.code, hash_file(job.code)


def manifest_rows(plan: Plan, run: RunDir) -> list[dict[str, Any]]:
    """The run's trials from now on: a run only grows, so that no result of it is lost from sight.

    Raises `ConfigError` for a recipe that has other trials than the run, not more: one table could not hold both.
    """
    planned = {
        trial.id: {"id": trial.id, "stage": stage.name, "task": trial.task, "point": dict(trial.point)}
        for stage, trial in plan.trials
    }
    earlier = {row["id"]: row for row in read_jsonl(run.manifest)} if run.manifest.exists() else {}
    if planned.keys() <= earlier.keys():
        return list(earlier.values())
    dropped = [trial for trial in earlier if trial not in planned and run.trial(trial).path.exists()]
    if dropped:
        new = len(planned.keys() - earlier.keys())
        raise ConfigError(
            f"the run {run.path.name} has {len(dropped)} trials that this recipe no longer has, and lacks {new} that "
            "it has now: start a new run with --new (or keep the old points in the grid to add to it)"
        )
    return list(planned.values())


def submit(run: RunDir, scripts: list[Scripts], backend: Backend, earlier: Mapping[str, list[str]]) -> list[Submitted]:
    """Queues all scripts, each stage after those it needs.

    `earlier` gives, for a stage, its jobs in the queue from earlier submissions. Results that no longer count are put
    aside first: whoever needs them must wait for those to come. When a script is refused, those that this call has
    queued already are cancelled again: all or nothing.
    """
    for item in scripts:
        for trial in item.trials:
            put_result_aside(run.trial(trial.id))
    done: list[Submitted] = []
    ids = {stage: list(jobs) for stage, jobs in earlier.items()}
    try:
        for item in scripts:
            after = [job for need in item.job.stage.needs for job in ids.get(need, [])]
            for chunk, _ in item.texts:
                entry = hand_over(run, item.job, chunk)
                entry = replace(entry, id=backend.submit(item.script(chunk), item.job, chunk, after))
                done.append(entry)
                note(run, entry)
                ids.setdefault(entry.stage, []).append(str(entry.id))
    except BaseException as error:
        if done:
            _take_back(backend, [str(entry.id) for entry in done], error)
        raise
    return done


def put_result_aside(trial: TrialDir) -> None:
    """Moves the result of a trial that is to run again to where people still find it; the job script does the rest."""
    if trial.result.exists():
        place = trial.stale(trial.last_attempt().get("attempt", 0))
        place.mkdir(parents=True, exist_ok=True)
        trial.result.replace(place / trial.result.name)


def _take_back(backend: Backend, jobs: list[str], error: BaseException) -> None:
    try:
        backend.cancel(jobs)
    except ConfigError as second:
        message = f"and the jobs {', '.join(jobs)}, queued a moment before, could not be cancelled: {second}"
        if isinstance(error, ConfigError):
            raise ConfigError([*error.problems, *second.problems]) from error
        error.add_note(message)
