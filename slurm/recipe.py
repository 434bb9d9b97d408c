"""Reads a recipe: YAML, what it extends, overrides from the command line, Jinja in values; then checks it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, Problem, dotted, nearest, parse_value, read_yaml, set_at, validate
from neobert.config.base import KeyPath
from slurm.schema import OWN, SHARED, TOP, RecipeSpec, StageSpec
from slurm.values import EnvironmentScope, Scope, bounded, render


@dataclass
class Origins:
    """Where each value of a recipe comes from: a file and line, or an option of the command line."""

    name: str
    at: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """The origin of the value at `path`, or of the nearest mapping around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.at:
                return self.at[path[:end]]
        return self.name

    def set(self, path: KeyPath, origin: str) -> None:
        """Notes a new origin for `path` and forgets what was below it."""
        for old in [known for known in self.at if known[: len(path)] == path]:
            del self.at[old]
        self.at[path] = origin


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `config` values still hold their Jinja, which is filled in for each trial."""

    spec: RecipeSpec
    file: Path
    names: dict[str, Any]
    origins: Origins
    single: bool  # written without `stages`

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key path of `spec`, such as `("stages", "glue", "config", "seed")`."""
        return self.origins.where(self.source_path(path))

    def source_path(self, path: KeyPath) -> KeyPath:
        """A key path of `spec` as the user wrote it: the only stage of a recipe without `stages` is its top."""
        if path[:1] == ("stages",) and self.single:
            return path[2:]
        if path[:1] == ("stages",) and len(path) > 2 and path[2] in SHARED and path[:3] not in self.origins.at:
            return path[2:]
        return path


def load_recipe(file: str | Path, overrides: Iterable[str] = (), unset: Iterable[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    `overrides` are `a.b=value` texts with YAML values, `unset` dotted keys to remove; both act after `extends` and
    before Jinja. Raises `ConfigError` with every problem found.
    """
    path = find_recipe(file)
    data, origins = _read(path, ())
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {text}: expected KEY=VALUE, for example --set resources.time=02:00:00")
        keys = split_key(key)
        try:
            # To YAML a leading `{{` opens a mapping; here it can only be meant as Jinja.
            set_at(data, keys, value if value.lstrip().startswith("{{") else parse_value(value, f"--set {text}"))
        except ConfigError as error:
            raise error.located(lambda _, text=text: f"--set {text}") from None  # type: ignore[misc]
        origins.set(keys, f"--set {text}")
    for key in unset:
        _remove(data, split_key(key), f"--unset {key}")
    recipe = _check(data, origins, path)
    _check_axes(recipe)
    return recipe


def _check_axes(recipe: Recipe) -> None:
    """An override of a value that the grid gives to every trial would change nothing, and nobody would notice."""
    for name, stage in recipe.spec.stages.items():
        axes = [key for key in stage.grid if key not in ("include", "exclude")] if isinstance(stage.grid, dict) else []
        for axis in (part.strip() for key in axes for part in str(key).split(",")):
            path = recipe.source_path(("stages", name, "config", *axis.split(".")))
            origin = recipe.origins.at.get(path, "")
            if origin.startswith("--set"):
                grid = dotted(recipe.source_path(("stages", name, "grid", axis)))
                raise ConfigError.at(path, f"is an axis of the grid: use --set '{grid}=[...]'", origin)


def split_key(key: str) -> KeyPath:
    """`a.b` as a key path. Inside a grid the axis, itself a dotted key, is one part: `grid.optimizer.lr`."""
    parts = key.strip().split(".")
    if "" in parts:
        raise ConfigError(f"'{key}' is no dotted key: an empty part")
    for index, part in enumerate(parts):
        if part == "grid" and index in (0, 2) and len(parts) > index + 1:
            return (*parts[: index + 1], ".".join(parts[index + 1 :]))
    return tuple(parts)


def bundled(folder: str) -> Path:
    """A folder of the recipes that come with the program (inside the wheel, or beside the packages in a checkout)."""
    here = Path(__file__).parent
    shipped = here / "_recipes"
    return (shipped if shipped.is_dir() else here.parent / "recipes") / folder


def find_recipe(name: str | Path) -> Path:
    """The recipe's file: the path as given, or the recipe of that name that comes with the program."""
    path = Path(name)
    shipped = bundled(".") / (str(name) if path.suffix else f"{name}.yaml")
    if not path.is_file() and not path.is_absolute() and shipped.is_file():
        return shipped
    if path.exists():
        return path
    files = [file.relative_to(bundled(".")).with_suffix("") for file in bundled(".").rglob("*.yaml")]
    known = [str(file) for file in files if file.parts[0] != "clusters"]
    asked = str(name).removeprefix("recipes/").removesuffix(".yaml")
    raise ConfigError(f"there is no recipe {name}{nearest(asked, known)}")


def _read(path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], Origins]:
    """A file's data over that of the recipe it extends.

    Mappings merge key by key; anything else, lists too, replaces what was inherited; keys listed under `unset` are
    removed from what was inherited.
    """
    if path.resolve() in below:
        chain = " -> ".join(os.path.relpath(p) for p in (*below[below.index(path.resolve()) :], path))
        raise ConfigError.at(("extends",), f"a recipe cannot extend itself: {chain}", str(path))
    source = read_yaml(path)
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else type(source.data).__name__
        raise ConfigError.at((), f"a recipe is a mapping of settings, found {found}", str(path))
    data, parent = dict(source.data), source.data.get("extends")
    unset = data.pop("unset", None) or []
    data.pop("extends", None)
    inherited: dict[str, Any] = {}
    origins = Origins(str(path))
    if parent is not None:
        if not isinstance(parent, str):
            raise ConfigError.at(("extends",), "expected the path of one recipe", source.where(("extends",)))
        file = path.parent / parent
        if not file.is_file():
            raise ConfigError.at(("extends",), f"there is no file {file}", source.where(("extends",)))
        inherited, origins = _read(file, (*below, path.resolve()))
    if not isinstance(unset, list) or not all(isinstance(key, str) for key in unset):
        raise ConfigError.at(("unset",), "expected a list of dotted keys", source.where(("unset",)))
    for key in unset:
        _remove(inherited, split_key(key), source.where(("unset",)))
    origins.name = str(path)
    origins.at.update({key: f"{source.name}:{line}" for key, line in source.lines.items() if key})
    return _merge(inherited, data), origins


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _remove(data: dict[str, Any], path: KeyPath, origin: str) -> None:
    inner: Any = data
    for part in path[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or path[-1] not in inner:
        raise ConfigError.at(path, "is not set, so it cannot be unset", origin)
    del inner[path[-1]]


def _check(data: dict[str, Any], origins: Origins, file: Path) -> Recipe:
    single = "stages" not in data
    names: dict[str, Any] = {"env": EnvironmentScope(os.environ), "name": data.get("name")}
    names["vars"] = Scope("vars", data.get("vars") or {}, names)
    recipe = Recipe(RecipeSpec.model_construct(name="", stages={}), file, names, origins, single)
    try:
        unknown = [key for key in data if key not in TOP]
        if unknown:
            raise ConfigError([Problem((str(key),), f"unknown key{nearest(str(key), TOP)}") for key in unknown])
        with bounded():
            rendered = _render(data, names)
        checked = validate(RecipeSpec, _one_stage(rendered) if single else _staged(rendered))
        _check_needs(checked.stages)
    except ConfigError as error:
        raise error.located(recipe.where, recipe.source_path) from None
    return replace(recipe, spec=checked)


def _render(data: dict[str, Any], names: dict[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """A recipe or a stage with its templates filled in, but for `config`, whose turn comes with each trial."""
    filled = {}
    for key, value in data.items():
        if key == "stages" and isinstance(value, dict) and not path:
            value = {k: _render(v, names, (key, k)) if isinstance(v, dict) else v for k, v in value.items()}
        elif key != "config":
            value = render(value, names, (*path, key))
        filled[key] = value
    return filled


def _one_stage(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe without `stages` in the form of `RecipeSpec`: its only stage is named after its task."""
    if "task" not in data:
        raise ConfigError.at(("task",), "is required (or several stages under `stages`)")
    top = {key: value for key, value in data.items() if key not in (*SHARED, *OWN)}
    return {**top, "stages": {str(data["task"]): {key: data[key] for key in (*SHARED, *OWN) if key in data}}}


def _staged(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe with `stages` in the form of `RecipeSpec`: what they share is written into each."""
    for key in OWN:
        if key in data:
            raise ConfigError.at((key,), "belongs inside one of the stages in a recipe that has `stages`")
    shared = {key: data[key] for key in SHARED if key in data}
    top = {key: value for key, value in data.items() if key not in SHARED}
    if isinstance(data["stages"], dict):
        stages = data["stages"].items()
        top["stages"] = {name: _merge(shared, own) if isinstance(own, dict) else own for name, own in stages}
    return top


def _check_needs(stages: dict[str, StageSpec]) -> None:
    order: list[str] = []

    def visit(stage: str, above: tuple[str, ...]) -> None:
        if stage in above:
            path = ("stages", stage, "needs")
            raise ConfigError.at(path, f"stages need each other: {' -> '.join((*above, stage))}")
        if stage in order:
            return
        for need in stages[stage].needs:
            if need == stage:
                raise ConfigError.at(("stages", stage, "needs"), "a stage cannot need itself")
            if need not in stages:
                path = ("stages", stage, "needs")
                raise ConfigError.at(path, f"there is no stage '{need}'{nearest(need, stages)}")
            visit(need, (*above, stage))
        order.append(stage)

    for stage in stages:
        visit(stage, ())
