"""What every settings model has in common: strictness, and errors that a person can act on."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A frozen settings model: unknown keys are errors, and types are not converted (except int to float)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    may_change: ClassVar[frozenset[str]] = frozenset()
    """Of a task's settings, the dotted keys that another attempt of the same trial may set otherwise, and the result is
    the same: they say how its work is shared out, or where it began."""

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What other programs call a setting of this task -> its dotted key here, for those who come from there."""

    def unused_paths(self) -> frozenset[KeyPath]:
        """The keys of files that these settings name but do not use, so that they need not exist."""
        return frozenset()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a settings file.

    `path` leads to the value (`("trainer", "max_steps")`), `message` says what was found and expected, and what to
    do; `where` is `file:line`, or empty when the value comes from no file.
    """

    path: KeyPath
    message: str
    where: str = ""

    def __str__(self) -> str:
        key = dotted(self.path)
        return ": ".join(part for part in (self.where, key, self.message) if part)


class ConfigError(Exception):
    """Settings that cannot be used; `problems` lists all of them, so that one round of mending is enough."""

    def __init__(self, problems: list[Problem] | str):
        self.problems = [Problem((), problems)] if isinstance(problems, str) else problems
        super().__init__("\n".join(map(str, self.problems)))

    @classmethod
    def at(cls, path: KeyPath, message: str, where: str = "") -> ConfigError:
        """A single problem, with the value at `path`."""
        return cls([Problem(path, message, where)])

    def located(self, where: Callable[[KeyPath], str], path: Callable[[KeyPath], KeyPath] = lambda p: p) -> ConfigError:
        """The same problems, each with the place of its value in a file, and once only; `path` renames the values."""
        problems = [Problem(path(p.path), p.message, p.where or where(p.path)) for p in self.problems]
        return ConfigError(list(dict.fromkeys(problems)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


def dotted(path: KeyPath) -> str:
    """`("a", 0, "b")` as the user writes it: `a[0].b`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """`, did you mean 'x'?` for the known word nearest to `word`, or the list of them when none is near."""
    words = sorted(known)
    plain = {_plain(name): name for name in words}
    close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{plain[close[0]]}'?"
    return f"; known here: {', '.join(words)}" if words else ""


def _plain(word: str) -> str:
    """A word without case and punctuation, which differ most often: SST-2 is sst2."""
    return "".join(filter(str.isalnum, word.lower())) or word


def validate(model: type[Model], data: Any, where: Callable[[KeyPath], str] = lambda path: "") -> Model:
    """`data` (plain YAML types) as a `model`; raises `ConfigError` with every problem, located by `where`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = []
        for e in error.errors(include_url=False):
            path = _data_path(e["loc"], data)
            problems.append(Problem(path, _message(model, e, path), where(path)))
        raise ConfigError(problems) from None


def _data_path(loc: KeyPath, data: Any) -> KeyPath:
    """Pydantic's location without the parts that name types (members of a union), which are no keys of the data."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(data, Mapping):
            if part in data:
                data = data[part]
            elif not last or part == "[key]":
                continue
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _message(model: type[BaseModel], error: Any, path: KeyPath) -> str:
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return "unknown key" + _meant(model, path)
        case "missing":
            return "is required"
        case "value_error" | "assertion_error":
            return str(error["ctx"]["error"])
        case "literal_error":
            expected = error["ctx"]["expected"]
            hint = nearest(str(found), re.findall(r"'(.*?)'", expected))
            return f"expected {expected}, found {found!r}" + (hint if "mean" in hint else "")
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a mapping of settings, found {_show(found)}"
        case "finite_number":
            return f"expected a finite number, found {_show(found)}"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"expected {expected}, found {_show(found)}"


def _meant(model: type[BaseModel], path: KeyPath) -> str:
    """What an unknown key may mean: the same word in another section or program, or else a word like it."""
    word, owner = str(path[-1]), _submodel(model, path[:-1])
    if owner is None:
        return ""
    leaves = {leaf: dotted(leaf) for leaf in _leaves(model)}
    theirs: Mapping[str, str] = getattr(model, "elsewhere", {})
    same = [theirs[word]] if word in theirs else [key for leaf, key in leaves.items() if leaf[-1] == word]
    here = nearest(word, owner.model_fields)
    if not same and "did you mean" not in here:
        close = difflib.get_close_matches(word, {str(leaf[-1]) for leaf in leaves}, n=1, cutoff=0.7)
        same = [key for leaf, key in leaves.items() if leaf[-1] in close]
    return f"; did you mean {' or '.join(map(repr, same[:3]))}?" if same else here


def _leaves(model: type[BaseModel], below: KeyPath = ()) -> typing.Iterator[KeyPath]:
    """The paths of all values in a settings model."""
    for name in model.model_fields:
        section = _submodel(model, (name,))
        if section is None:
            yield (*below, name)
        else:
            yield from _leaves(section, (*below, name))


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _submodel(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The settings model at `path` inside `model`, or None where no single model is to be found."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            current = next(iter(typing.get_args(current)), None)
        elif isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        elif typing.get_origin(current) is dict:
            current = typing.get_args(current)[1]
        else:
            return None
        if typing.get_origin(current) in (typing.Union, types.UnionType):
            models = [a for a in typing.get_args(current) if isinstance(a, type) and issubclass(a, BaseModel)]
            others = [a for a in typing.get_args(current) if typing.get_origin(a) in (dict, list)]
            current = models[0] if models else others[0] if others else None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
