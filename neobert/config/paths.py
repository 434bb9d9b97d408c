"""The files and directories that settings name: the types of such settings, and how to find their values.

The launcher asks for them before it queues anything: it tells what is missing, and binds the rest into containers.
"""

from __future__ import annotations

import functools
import glob
import os
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from neobert.config.base import ConfigError, KeyPath, Strict

Model = TypeVar("Model", bound=BaseModel)


class Role(Enum):
    """What stands at the path that a setting names."""

    INPUT = "a file or directory that must be there"
    FILES = "files of text: a name, a directory or a pattern of this machine, or an address of another"
    MODEL = "a directory, or a name on the hub"
    OUTPUT = "a directory that the task makes, in one that must be there"


LocalPath = Annotated[str, Field(min_length=1), Role.INPUT]
"""A file or directory; a relative one is meant from the directory in which the command was given."""
FilePattern = Annotated[str, Field(min_length=1), Role.FILES]
ModelPath = Annotated[str, Field(min_length=1), Role.MODEL]
OutputPath = Annotated[str, Field(min_length=1), Role.OUTPUT]


@dataclass(frozen=True)
class NamedPath:
    key: KeyPath
    value: str
    """The path as the settings have it."""
    role: Role
    optional: bool = False
    """The settings name it, but do not use it as they are."""

    @property
    def path(self) -> Path:
        """The path, with `~` expanded."""
        return at_home(self.value)

    @property
    def place(self) -> Path:
        """What must be there: the path itself, but for an output the directory in which it is made."""
        return self.path.parent if self.role is Role.OUTPUT else self.path

    @property
    def found(self) -> list[Path]:
        """What of it is on this machine: one path, or none, or the files that a pattern stands for."""
        if self.role is Role.FILES and "://" not in self.value and not self.place.exists():
            return [Path(match) for match in glob.glob(str(self.path), recursive=True)]  # noqa: PTH207
        return [self.place] if self.place.exists() else []

    @property
    def must_be_here(self) -> bool:
        match self.role:
            case Role.FILES:
                return "://" not in self.value
            case Role.MODEL:
                return self.value.startswith(("/", "./", "../", "~"))
        return not self.optional

    @property
    def missing(self) -> str:
        """What is said of it where nothing is found."""
        match self.role:
            case Role.FILES:
                return f"there is no file {self.value}{why_missing(self.place)}"
            case Role.OUTPUT:
                return (
                    f"there is no directory {self.place}, in which {self.path.name} is to be made"
                    f"{why_missing(self.place)}"
                )
        return f"there is no {self.value}{why_missing(self.place)}"


def at_home(path: str | Path) -> Path:
    """The path, with `~` expanded as a shell does; `~name` of an unknown user stays as it is.

    Raises `ConfigError` where nobody knows the user's own home.
    """
    expanded = Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    if expanded.parts[:1] == ("~",):
        raise ConfigError(f"{path}: the home directory is unknown here: set HOME, or write an absolute path")
    return expanded


def why_missing(path: Path) -> str:
    """The end of a message about a path that does not exist: the symbolic link on the way that leads nowhere.

    Empty where no link is to blame. In a container, links often lead to directories that are not bound into it.
    """
    link = next((place for place in [*reversed(path.parents), path] if place.is_symlink() and not place.exists()), None)
    if link is None:
        return ""
    target = os.path.realpath(link)
    if not any(name in os.environ for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")):
        return f" ({link} is a link to {target}, which does not exist)"
    return (
        f" ({link} is a link to {target}, which this container does not have. Add `binds: [{target}]` to the recipe, "
        "or `--bind` to the command that starts the container)"
    )


def why_incomplete(directory: Path) -> str:
    """The end of a message about a file that a directory lacks: a symbolic link in it that leads nowhere."""
    lost = min((entry for entry in directory.iterdir() if not entry.exists()), default=None)
    return "" if lost is None else why_missing(lost)


def expand_home(settings: Model) -> Model:
    """The settings with `~` expanded in every path that they name.

    What identifies a trial, and config.yaml, keep what the user wrote; the task itself gets these.
    """
    changes = {}
    for name in type(settings).model_fields:
        before = getattr(settings, name)
        after = _expanded(before, _role(type(settings), name)[0])
        if after != before:
            changes[name] = after
    return settings.model_copy(update=changes) if changes else settings


def _expanded(value: Any, role: Role | None) -> Any:
    if isinstance(value, BaseModel):
        return expand_home(value)
    if isinstance(value, list | tuple):
        return type(value)(_expanded(inner, role) for inner in value)
    return str(at_home(value)) if role is not None and isinstance(value, str) and value.startswith("~") else value


def named_paths(settings: BaseModel) -> Iterator[NamedPath]:
    """Every file or directory that the settings name, by the types of their fields."""
    unused = settings.unused_paths() if isinstance(settings, Strict) else frozenset()
    for path in _named_paths(settings, ()):
        yield replace(path, optional=path.key in unused)


def _named_paths(settings: BaseModel, below: KeyPath) -> Iterator[NamedPath]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        role, words = _role(type(settings), name)
        for key, inner in enumerate(value) if isinstance(value, list | tuple) else [(None, value)]:
            path = (*below, name) if key is None else (*below, name, key)
            if isinstance(inner, BaseModel):
                yield from _named_paths(inner, path)
            elif role is not None and isinstance(inner, str) and inner not in words:
                yield NamedPath(path, inner, role)


@functools.cache
def _role(model: type[BaseModel], name: str) -> tuple[Role | None, frozenset[Any]]:
    """What the values of a field name, and the words that may stand there in place of a path."""
    marks = marks_of(model, name)
    roles = [mark for mark in marks if isinstance(mark, Role)]
    return roles[0] if roles else None, frozenset(mark for mark in marks if isinstance(mark, str))


@functools.cache
def marks_of(model: type[BaseModel], name: str) -> tuple[Any, ...]:
    """What annotates a field, or a part of its type, and the words of its literals."""
    field = model.model_fields[name]
    # pydantic takes what annotates the whole of a field out of its annotation.
    return (*field.metadata, *_parts(field.annotation))


def _parts(annotation: Any) -> Iterator[Any]:
    """The metadata of an annotation, and the words of its literals, at any depth."""
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
        return
    yield from getattr(annotation, "__metadata__", ())
    if typing.get_origin(annotation) in (Annotated, list, tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(annotation):
            yield from _parts(inner)
