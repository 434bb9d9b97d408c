"""A recipe and a cluster profile -> what is to run: stages in order, each with its trials."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neobert.config import TASKS, ConfigError, NamedPath, Problem, Strict, dotted, named_paths, set_at, validate
from neobert.config.base import KeyPath
from neobert.config.paths import Role, at_home
from slurm.cluster import Profile
from slurm.grid import Point, expand
from slurm.recipe import Recipe
from slurm.schema import Array, Resources, StageSpec, slurm_time
from slurm.values import Scope, bounded, has_template, render, verbatim

RUN = "@{run}"
"""Stands for the run's directory in configs, so that a trial's id does not depend on where its run lies."""

MAX_PROBLEMS = 20

UNIDENTIFIED: Any = {"trainer": {"keep"}}
"""Settings that are no part of what a trial is: what is kept of it can be decided when it is done."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of a stage's grid. `config` is the resolved config as JSON.

    `id` is the hash of the task and of the config, but for what is kept of a trial once it is done.
    """

    id: str
    task: str
    point: Mapping[str, Any]
    config: str

    def manifest_line(self, run: Path) -> str:
        """The trial's line in a job's manifest, which begins with its id (the job script reads that with bash)."""
        config = self.config.replace(RUN, json.dumps(str(run), ensure_ascii=False)[1:-1])
        return f'{{"id": "{self.id}", "task": "{self.task}", "config": {config}}}\n'


@dataclass(frozen=True)
class Stage:
    """One kind of job, with all of its trials."""

    name: str
    task: str
    needs: tuple[str, ...]
    image: str | None
    resources: Resources
    array: Array
    env: Mapping[str, str]
    secrets: tuple[str, ...]
    binds: tuple[str, ...]
    trials: tuple[Trial, ...]
    axes: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours when every trial takes all of its time."""
        each = self.resources.nodes * self.resources.gpus_per_node * self.resources.time / 3600
        return each * len(self.trials)


@dataclass(frozen=True)
class Plan:
    """Everything that a recipe asks for, in an order in which it can run."""

    name: str
    cluster: str
    profile: Profile
    stages: tuple[Stage, ...]

    @property
    def trials(self) -> list[tuple[Stage, Trial]]:
        return [(stage, trial) for stage in self.stages for trial in stage.trials]


def make_plan(recipe: Recipe, cluster: str, profile: Profile) -> Plan:
    """Expands every stage's grid and checks each trial's config. Raises `ConfigError`."""
    stages: dict[str, Stage] = {}
    waiting = list(recipe.spec.stages)
    while waiting:  # the needs were checked for cycles, so each round places one at least
        name = next(n for n in waiting if all(need in stages for need in recipe.spec.stages[n].needs))
        waiting.remove(name)
        stages[name] = _stage(recipe, profile, name, stages)
    _no_trial_twice(recipe, stages.values())
    return Plan(recipe.spec.name, cluster, profile, tuple(stages.values()))


def _no_trial_twice(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Stages too must differ in their trials: one trial has one directory."""
    owner: dict[str, str] = {}
    for stage in stages:
        for trial in stage.trials:
            if trial.id in owner:
                path = ("stages", stage.name)
                message = f"its trial {label(trial.point)} is one of stage '{owner[trial.id]}' as well"
                raise ConfigError.at(path, message, recipe.where(path))
            owner[trial.id] = stage.name


def missing_paths(plan: Plan, recipe: Recipe) -> list[Problem]:
    """The images, files and directories that the plan names and this machine does not have.

    Left out are paths that the run itself will make, such as the output of another stage, and those on node-local
    scratch.
    """
    named: dict[NamedPath, KeyPath] = {}
    for stage in plan.stages:
        at = ("stages", stage.name)
        for path in paths_of(stage):
            named.setdefault(replace(path, key=()), (*at, "config", *path.key))
        image = image_path(stage, plan.profile)
        if image is not None:
            named.setdefault(NamedPath((), str(image), Role.INPUT), (*at, "image"))
        for bind in stage.binds:
            source = NamedPath((), bind.partition(":")[0], Role.INPUT)
            named.setdefault(source, (*at, "binds") if bind not in plan.profile.container.binds else ())
    made = [str(path.path) for path in named if path.role is Role.OUTPUT]
    if plan.profile.scratch is not None:
        made.append(plan.profile.scratch)
    return [
        Problem(recipe.source_path(key), f"{path.missing} (here: {Path.cwd()})", recipe.where(key))
        for path, key in named.items()
        if path.must_be_here and not path.found and not any(path.place.is_relative_to(folder) for folder in made)
    ]


def missing_secrets(plan: Plan, recipe: Recipe) -> list[Problem]:
    """The secrets that stages ask for and the environment of this command does not hold: jobs get them from here."""
    problems: dict[str, Problem] = {}
    for stage in plan.stages:
        for name in stage.secrets:
            if name not in os.environ:
                path = ("stages", stage.name, "secrets") if name not in plan.profile.secrets else ()
                message = f"{name} is not set in the environment that submits: export it, or leave it out of secrets"
                where = recipe.where(path) if path else f"cluster profile '{plan.cluster}'"
                problems.setdefault(name, Problem(recipe.source_path(path), message, where))
    return list(problems.values())


def paths_of(stage: Stage) -> list[NamedPath]:
    """The files and directories that a stage's configs name, each once; without those in the run's own directory."""
    found: dict[NamedPath, NamedPath] = {}
    for trial in stage.trials:
        for path in named_paths(TASKS[trial.task].model_validate_json(trial.config)):
            if not path.value.startswith(RUN):
                found.setdefault(replace(path, key=()), path)
    return list(found.values())


def image_path(stage: Stage, profile: Profile) -> Path | None:
    """The image that a stage runs in, or None if it runs on the host. Raises `ConfigError` for one in a registry."""
    if stage.image is None or profile.container.runtime == "none":
        return None
    if "://" in stage.image:
        message = f"{stage.image} is to be fetched once, by `{profile.container.runtime} pull IMAGE.sif {stage.image}`"
        raise ConfigError.at(("stages", stage.name, "image"), f"expected an image file: {message}")
    return Path.cwd() / at_home(profile.image_dir or "") / at_home(stage.image)


def _stage(recipe: Recipe, profile: Profile, name: str, done: Mapping[str, Stage]) -> Stage:
    spec = recipe.spec.stages[name]
    at = ("stages", name)
    try:
        points = expand(spec.grid)
        _within_limits(spec, profile, len(points))
        _no_path_of_a_container(spec, profile)
        trials = _trials(recipe, spec, points, done, name)
    except ConfigError as error:
        raise error.located(lambda p: recipe.where((*at, *p)), lambda p: recipe.source_path((*at, *p))) from None
    axes = tuple(dict.fromkeys(key for point in points for key in point.values))
    return Stage(
        name=name,
        task=spec.task,
        needs=tuple(spec.needs),
        image=spec.image,
        resources=spec.resources,
        array=spec.array,
        env={**profile.env, **spec.env},
        secrets=tuple(dict.fromkeys([*profile.secrets, *spec.secrets])),
        binds=tuple(dict.fromkeys([*profile.container.binds, *spec.binds])),
        trials=trials,
        axes=axes,
    )


def _trials(
    recipe: Recipe, spec: StageSpec, points: list[Point], done: Mapping[str, Stage], stage: str
) -> tuple[Trial, ...]:
    model = TASKS[spec.task]
    templated = has_template(spec.config)
    needed = {name: done[name] for name in _all_needs(recipe, stage)}
    names = {**recipe.names, "stages": _upstream(needed), "stage": stage, "run": RUN}
    trials: dict[str, Trial] = {}
    first: dict[str, Point] = {}
    problems: dict[str, Problem] = {}
    for point in points:
        try:
            settings = _settings(model, spec, point, names if templated else None)
        except ConfigError as error:
            problems.update({str(p): p for p in error.problems})
            if len(problems) > MAX_PROBLEMS:
                break
            continue
        identity = settings.model_dump_json(exclude=UNIDENTIFIED)
        digest = hashlib.sha256(f"{spec.task} {identity}".encode()).hexdigest()
        trial = Trial(digest[:12], spec.task, point.values, settings.model_dump_json())
        if trial.id in trials:
            raise ConfigError([_duplicate(first[trial.id], point)])
        trials[trial.id], first[trial.id] = trial, point
    if problems:
        raise ConfigError(list(problems.values())[:MAX_PROBLEMS])
    return tuple(trials.values())


def _all_needs(recipe: Recipe, stage: str) -> list[str]:
    """The stages that this one needs, and those that they need."""
    direct = recipe.spec.stages[stage].needs
    return list(dict.fromkeys([*direct, *(name for need in direct for name in _all_needs(recipe, need))]))


def _settings(model: type[Strict], spec: StageSpec, point: Point, names: Mapping[str, Any] | None) -> Strict:
    """The settings of one trial; problems are located in the grid where the grid gave the value."""
    config = copy.deepcopy(spec.config)

    def place(path: KeyPath) -> KeyPath:
        for end in range(len(path), 0, -1):
            axis = dotted(path[:end])
            if axis in point.paths:
                return point.paths[axis]
        for axis, grid_path in point.paths.items():
            if axis.startswith(dotted(path) + "."):
                return grid_path
        return ("config", *path)

    try:
        for key, value in point.values.items():
            # The grid's templates were filled in when the recipe was read.
            set_at(config, tuple(key.split(".")), value if names is None else verbatim(value))
        if names is not None:
            scope: dict[str, Any] = dict(names)
            scope["config"] = Scope("config", config, scope)
            with bounded():
                config = render(config, scope)
        return validate(model, config)
    except ConfigError as error:
        raise ConfigError([Problem(place(p.path), _named(p, place(p.path))) for p in error.problems]) from None


def _named(problem: Problem, place: KeyPath) -> str:
    """The message, with the config key in front where the place alone (an axis of several keys) does not tell it."""
    key = dotted(problem.path)
    return problem.message if dotted(place).endswith(key) else f"{key}: {problem.message}"


def _duplicate(first: Point, second: Point) -> Problem:
    place = next(iter(second.paths.values()), ("grid",))
    return Problem(place, f"two trials are the same: {label(first.values)} and {label(second.values)}")


def label(point: Mapping[str, Any]) -> str:
    """A point in short: `task_name=rte optimizer.lr=1e-05`."""
    parts = [f"{key}={value:.12g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.items()]
    return " ".join(parts) or "(no grid)"


def _upstream(done: Mapping[str, Stage]) -> Scope:
    """What configs may say of earlier stages: `stages.NAME.trials` (directories), and `.dir` where there is but one."""
    tree: dict[str, dict[str, Any]] = {}
    for name, stage in done.items():
        trials = [f"{RUN}/trials/{trial.id}" for trial in stage.trials]
        tree[name] = {"trials": trials} | ({"dir": trials[0]} if len(trials) == 1 else {})
    return Scope("stages", tree, {})


def _no_path_of_a_container(spec: StageSpec, profile: Profile) -> None:
    """The variables of `env` are there on the host already, where srun and Apptainer are found by PATH."""
    if "PATH" not in {**profile.env, **spec.env} or spec.image is None or profile.container.runtime == "none":
        return
    message = (
        "PATH says where the node finds srun and the container's program: for the container alone it is set in the "
        "image, or by the profile's `container.flags: [--env, PATH=...]`"
    )
    raise ConfigError.at(("env", "PATH"), message, "" if "PATH" in spec.env else "cluster profile")


def _within_limits(spec: StageSpec, profile: Profile, trials: int) -> None:
    limits, asked = profile.limits, spec.resources
    for key, value, limit in (
        ("nodes", asked.nodes, limits.max_nodes),
        ("gpus_per_node", asked.gpus_per_node, limits.max_gpus_per_node),
        ("cpus", asked.cpus, limits.max_cpus),
    ):
        if limit is not None and value > limit:
            raise ConfigError.at(("resources", key), f"{value} is more than the cluster profile allows: {limit}")
    seconds = asked.time * min(spec.array.pack, trials)
    if limits.max_time is not None and seconds > limits.max_time:
        told = slurm_time(seconds) + (" (a trial's time x pack)" if spec.array.pack > 1 else "")
        message = f"{told} is more than the cluster profile allows: {slurm_time(limits.max_time)}"
        raise ConfigError.at(("resources", "time"), message)
