"""What a recipe names on the hub, and the download of it: what `recipe fetch` does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from neobert.config import TASKS
from neobert.config.hub import HubName, each_once, hub_names
from neobert.config.paths import Role, at_home
from slurm.container import CACHES, argv
from slurm.debug import new_directory, with_scratch_here
from slurm.encoding import write_exactly
from slurm.plan import RUN, Plan, Stage, image_path, paths_of
from slurm.provenance import snapshot_code
from slurm.render import Job, enter
from slurm.rundir import EXEC, write_atomically
from slurm.schema import OF_PROCESS
from slurm.session import Session
from slurm.shell import quote
from slurm.submit import make_job


def fetch(session: Session, verify: bool, dry_run: bool) -> int:
    """Runs `neobert fetch` for all that the recipe names on the hub, as its jobs would; returns the exit code.

    Paths that the recipe names need not be there yet. Raises `ConfigError`.
    """
    groups = wanted(session.plan)
    if not groups:
        print("nothing to fetch: the recipe names nothing on the hub")
    for stage, names in groups:
        options = [word for name in names for word in (f"--{name.kind}", str(name))]
        code = _run(session, stage, ["fetch", *(["--verify"] if verify else []), *options], dry_run)
        if code:
            return code
    return 0


def wanted(plan: Plan) -> list[tuple[Stage, list[HubName]]]:
    """What stages need of the hub; of stages that share image and environment, and with them the cache, only the first.

    Left out are directories: those that are there, and those that another stage makes.
    """
    made = [path.path for stage in plan.stages for path in paths_of(stage) if path.role is Role.OUTPUT]
    groups: dict[str, tuple[Stage, list[HubName]]] = {}
    for stage in plan.stages:
        found = [
            name
            for trial in stage.trials
            for name in hub_names(TASKS[trial.task].model_validate_json(trial.config))
            if not name.is_here
            and not name.name.startswith(RUN)
            and not any(Path(name.name).is_relative_to(folder) for folder in made)
        ]
        shared = (image_path(stage, plan.profile), sorted(stage.env.items()), stage.binds, stage.secrets)
        groups.setdefault(repr(shared), (stage, []))[1].extend(found)
    return [(stage, each_once(names)) for stage, names in groups.values() if names]


def _run(session: Session, stage: Stage, arguments: Sequence[str], dry_run: bool) -> int:
    """Runs `neobert` in the environment of the stage's jobs; it needs no GPU."""
    stage = replace(stage, resources=stage.resources.model_copy(update={"gpus_per_node": 0}))
    directory = new_directory(session.runs / session.plan.name / EXEC, session.plan.profile.runs_mode)
    code = snapshot_code(directory)
    job = replace(
        make_job(session.plan, stage, 1, directory, session.backend, code),
        profile=with_scratch_here(session.plan.profile),
        directory=directory.path,
    )
    environment = {key: value for key, value in os.environ.items() if key not in OF_PROCESS} | dict(stage.env)
    script = enter(job)
    if script is None:
        added = {**stage.env, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
        words = _on_host(job, arguments)
        if dry_run:
            write_exactly(shlex.join(["env", *(f"{key}={value}" for key, value in added.items()), *words]) + "\n")
            return 0
        return _wait(words, environment | added)
    _make_caches(environment)
    path = directory.path / "enter.sh"
    write_atomically(path, script)
    words = argv(path, ["python3", "-m", "neobert", *arguments])
    return _wait(words, environment | {"RECIPE_VERB": "print" if dry_run else "exec"})


def _on_host(job: Job, arguments: Sequence[str]) -> list[str]:
    words = [job.python, "-m", "neobert", *arguments]
    if not job.profile.modules:
        return words
    failed = "{ echo recipe: cannot load the module %s >&2; exit 2; }"
    modules = map(quote, job.profile.modules)
    load = "".join(f"module load {module} || {failed % module}\n" for module in modules)  # which says itself why
    return ["bash", "-c", f'{load}exec "$@"', "bash", *words]


def _make_caches(environment: Mapping[str, str]) -> None:
    """Only directories that are there are bound into a container."""
    for name in CACHES:
        if name.startswith("HF_") and environment.get(name):
            at_home(environment[name]).mkdir(parents=True, exist_ok=True)


def _wait(words: Sequence[str], environment: Mapping[str, str]) -> int:
    sys.stdout.flush()
    with subprocess.Popen(words, env=dict(environment)) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # which the terminal has told the process as well
                continue
            return code if code >= 0 else 128 - code
