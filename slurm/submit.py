"""A plan -> a run directory, job scripts in it, and jobs in a queue."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from neobert.config import ConfigError
from slurm.backends import Backend, QueuedTask, get_backend
from slurm.plan import Plan, Stage, Trial, missing_paths
from slurm.provenance import provenance, snapshot_code
from slurm.recipe import Recipe
from slurm.render import Chunk, Job, chunks, image_path, render
from slurm.rundir import RunDir, TrialDir, read_json, read_jsonl, write_atomically


@dataclass(frozen=True)
class Scripts:
    """What one stage gives to the queue."""

    job: Job
    trials: tuple[Trial, ...]
    texts: tuple[tuple[Chunk, str], ...]

    def script(self, chunk: Chunk) -> Path:
        return self.job.directory / ("job.sh" if len(self.texts) == 1 else f"job-{chunk.number}.sh")


@dataclass(frozen=True)
class Submitted:
    """A line of submissions.jsonl: one job, and which of its manifest's trials each array task runs."""

    stage: str
    directory: str
    chunk: int
    offset: int
    tasks: int
    pack: int
    backend: str
    name: str
    comment: str
    id: str | None  # None: handed over, and no answer noted yet
    time: float

    def trials(self, run: RunDir) -> list[list[str]]:
        """The ids of each array task's trials."""
        ids = [row["id"] for row in read_jsonl(run.job(self.stage, self.directory) / "trials.jsonl")]
        starts = range(self.offset * self.pack, (self.offset + self.tasks) * self.pack, self.pack)
        return [ids[start : start + self.pack] for start in starts]


def read_submissions(run: RunDir) -> list[Submitted]:
    """All jobs of a run, oldest first; a job whose id came to be known appears once, with it."""
    found: dict[tuple[str, float], Submitted] = {}
    for row in read_jsonl(run.submissions):
        job = Submitted(**row)
        found[job.comment, job.time] = job
    return list(found.values())


def in_flight(run: RunDir, submissions: Iterable[Submitted]) -> dict[str, QueuedTask]:
    """The trials that wait or run in a queue now, with what the queue says. One question for each backend.

    Jobs that reached the queue although their submission was cut off before it noted the id are found by their
    comment, and noted.
    """
    jobs = list(submissions)
    trials: dict[str, QueuedTask] = {}
    for backend in {job.backend for job in jobs}:
        mine = [job for job in jobs if job.backend == backend]
        queued = get_backend(backend, run.path).queue({job.name for job in mine})
        tasks = {task.key: task for task in queued}
        known = {job.id for job in mine}
        for job in mine:
            if job.id is None:
                adopted = [task.key[0] for task in queued if task.comment == job.comment and task.key[0] not in known]
                if not adopted:
                    continue
                job = replace(job, id=adopted[0])
                known.add(job.id)
                _note(run, job)
            for index, ids in enumerate(job.trials(run)):
                task = tasks.get((str(job.id), index))
                if task is not None:
                    trials.update({trial: task for trial in ids if not _over(run.trial(trial), task)})
    return trials


def _over(trial: TrialDir, task: QueuedTask) -> bool:
    """Whether a trial has ended although its array task still runs: there are others in it, or it is just ending."""
    if task.state.state == "PENDING":
        return False
    failure = read_json(trial.failure)
    failed_here = failure is not None and failure["job"] in (f"{task.key[0]}_{task.key[1]}", task.key[0])
    return failed_here or trial.result.exists()


def choose(plan: Plan, run: RunDir | None, busy: Mapping[str, Any]) -> dict[str, list[Trial]]:
    """The trials of each stage that are to be submitted: all that are neither done nor in a queue."""
    return {
        stage.name: [
            trial for trial in stage.trials
            if trial.id not in busy and not (run is not None and run.trial(trial.id).result.exists())
        ]
        for stage in plan.stages
    }  # fmt: skip


def prepare(recipe: Recipe, plan: Plan, run: RunDir, backend: str, todo: Mapping[str, list[Trial]]) -> list[Scripts]:
    """Renders all scripts, then writes the run's directory. Nothing is submitted.

    Doing it again with the same trials writes the same files. Raises `ConfigError` before anything is written, or
    OSError if the directory cannot be written.
    """
    missing = missing_paths(plan)
    if missing:
        raise ConfigError(missing)
    workdir = Path.cwd()
    stages = [stage for stage in plan.stages if todo[stage.name]]
    images = [image for stage in plan.stages if (image := image_path(stage, plan.profile)) is not None]
    run.path.mkdir(parents=True, exist_ok=True)
    code = snapshot_code(run)
    scripts = [_scripts(plan, stage, tuple(todo[stage.name]), run, backend, code, workdir) for stage in stages]
    for item in scripts:
        (item.job.directory / "logs").mkdir(parents=True, exist_ok=True)
        lines = (trial.manifest_line(run.path) for trial in item.trials)
        write_atomically(item.job.directory / "trials.jsonl", "".join(lines))
        for chunk, text in item.texts:
            write_atomically(item.script(chunk), text)
    spec = recipe.spec.model_dump(mode="json")
    write_atomically(run.recipe, yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
    record = provenance(workdir, code, images[0] if images else None)
    write_atomically(run.provenance, json.dumps({**record, "cluster": plan.cluster}, indent=1) + "\n")
    rows = (
        {"id": trial.id, "stage": stage.name, "task": trial.task, "point": dict(trial.point)}
        for stage, trial in plan.trials
    )
    write_atomically(run.manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return scripts


def _scripts(
    plan: Plan, stage: Stage, trials: tuple[Trial, ...], run: RunDir, backend: str, code: Path, workdir: Path
) -> Scripts:
    job = Job(
        recipe=plan.name,
        stage=stage,
        profile=plan.profile,
        backend=backend,
        trials=len(trials),
        run=run.path,
        directory=run.job(stage.name, ""),
        code=code,
        workdir=workdir,
        python=plan.profile.python or sys.executable,
    )
    # The directory's name is the hash of what is in it, so that an equal submission is recognised as the same.
    content = "".join([*(render(job, chunk) for chunk in chunks(job)), *(trial.id for trial in trials)])
    job = replace(job, directory=run.job(stage.name, hashlib.sha256(content.encode()).hexdigest()[:8]))
    return Scripts(job, trials, tuple((chunk, render(job, chunk)) for chunk in chunks(job)))


def submit(run: RunDir, scripts: list[Scripts], backend: Backend, earlier: Mapping[str, list[str]]) -> list[Submitted]:
    """Queues all scripts, each stage after those it needs.

    `earlier` gives, for a stage, the ids of jobs in the queue from earlier submissions. When one is refused, those
    that this call has queued already are cancelled again: all or nothing.
    """
    backend.check([item.job for item in scripts])
    done: list[Submitted] = []
    ids = {stage: list(jobs) for stage, jobs in earlier.items()}
    try:
        for item in scripts:
            after = [job for need in item.job.stage.needs for job in ids.get(need, [])]
            for chunk, _ in item.texts:
                entry = hand_over(run, item.job, chunk)
                entry = replace(entry, id=backend.submit(item.script(chunk), item.job, chunk, after))
                done.append(entry)
                _note(run, entry)
                ids.setdefault(entry.stage, []).append(str(entry.id))
    except BaseException:
        if done:
            backend.cancel([str(entry.id) for entry in done])
        raise
    return done


def hand_over(run: RunDir, job: Job, chunk: Chunk) -> Submitted:
    """Notes, before it happens, that a script goes to the queue: should its id get lost, it is still looked for."""
    entry = Submitted(
        stage=job.stage.name, directory=job.directory.name, chunk=chunk.number, offset=chunk.offset, tasks=chunk.tasks,
        pack=job.stage.array.pack, backend=job.backend, name=job.name, comment=job.comment(chunk), id=None,
        time=time.time(),
    )  # fmt: skip
    _note(run, entry)
    return entry


def _note(run: RunDir, entry: Submitted) -> None:
    with run.submissions.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(vars(entry)) + "\n")


@contextmanager
def one_at_a_time(run: RunDir) -> Iterator[None]:
    """Keeps two submissions of one run apart."""
    run.path.mkdir(parents=True, exist_ok=True)
    with (run.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
