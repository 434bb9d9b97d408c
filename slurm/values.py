"""Jinja in the values of recipes and cluster profiles: sandboxed, strict about names, and keeping native types."""

from __future__ import annotations

import re
import resource
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from neobert.config import ConfigError, nearest
from neobert.config.base import KeyPath
from slurm.secrets import is_secret


class _Undefined(jinja2.StrictUndefined):
    """Names what is known where an unknown name was asked for."""

    @property
    def _undefined_message(self) -> str:
        known: Iterable[Any] = self._undefined_obj if isinstance(self._undefined_obj, Mapping) else ()
        known = known.names if isinstance(known, EnvironmentScope) else known
        owner = self._undefined_obj.label + "." if isinstance(self._undefined_obj, Scope) else ""
        hint = nearest(str(self._undefined_name), map(str, known))
        if isinstance(self._undefined_obj, Scope) and self._undefined_obj.label in ("env", "stages"):
            # No list of the whole environment; and of stages only those are known that are in `needs`.
            hint = (
                hint if "mean" in hint else "; it must be in `needs`" if self._undefined_obj.label == "stages" else ""
            )
        return f"the Jinja variable '{owner}{self._undefined_name}' is not defined{hint}"


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """`vars.items` is the user's value of that name, not the method of a mapping."""
        return obj[attribute] if isinstance(obj, Mapping) and attribute in obj else super().getattr(obj, attribute)


SECONDS, MEMORY, LENGTH = 10, 1 << 30, 1_000_000
"""Bounds on the templates of one recipe or trial: seconds, bytes of memory, and characters in a single value."""


def _environment() -> _Environment:
    """Without what has no use in a recipe, or gives another value each time: trials are known by the hash of theirs."""
    environment = _Environment(undefined=_Undefined, keep_trailing_newline=True)
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    del environment.filters["random"]
    return environment


_ENV = _environment()


@contextmanager
def bounded() -> Iterator[None]:
    """Within this context a template that runs on, or fills the memory, ends with a `ConfigError`.

    The time is only bounded in the main thread, the one that receives signals.
    """
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGALRM, _out_of_time)
            stack.callback(signal.signal, signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _address_space() + MEMORY
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, (soft, hard))
        yield


def _address_space() -> int:
    """Bytes that this process has mapped (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _out_of_time(*_: Any) -> NoReturn:
    raise ConfigError(f"a template takes longer than {SECONDS} s")


class Verbatim(str):
    """A text that is taken as it is, whatever it holds."""


def verbatim(value: Any) -> Any:
    """`value` with its texts marked as filled in already."""
    match value:
        case str():
            return Verbatim(value)
        case dict():
            return {key: verbatim(inner) for key, inner in value.items()}
        case list():
            return [verbatim(inner) for inner in value]
    return value


def escaped(value: Any) -> Any:
    """`value` with its texts written so that filling them in again gives them as they are."""
    match value:
        case str():
            return value.replace("{", "{{ '{' }}") if has_template(str(value)) else str(value)
        case dict():
            return {key: escaped(inner) for key, inner in value.items()}
        case list():
            return [escaped(inner) for inner in value]
    return value


def has_template(value: Any) -> bool:
    """Whether a value, or any value inside it, holds Jinja."""
    match value:
        case Verbatim():
            return False
        case str():
            return "{{" in value or "{%" in value or "{#" in value
        case dict():
            return any(map(has_template, value.values()))
        case list():
            return any(map(has_template, value))
    return False


class Scope(Mapping[str, Any]):
    """A tree of values that are rendered when a template asks for them, so that they may refer to each other."""

    def __init__(self, label: str, tree: Mapping[str, Any], names: Mapping[str, Any], rendering: tuple[str, ...] = ()):
        self.label, self._tree, self._names, self._rendering = label, tree, names, rendering

    def __getitem__(self, key: str) -> Any:
        value, label = self._tree[key], f"{self.label}.{key}"
        if isinstance(value, Mapping):
            return Scope(label, value, self._names, self._rendering)
        if not has_template(value):
            return value
        if label in self._rendering:
            raise jinja2.TemplateError(f"refers to itself: {' -> '.join([*self._rendering, label])}")
        return render(value, {name: self._below(label, known) for name, known in self._names.items()})

    def __repr__(self) -> str:
        # A template that prints it would give the address of an object: another text, and so another trial, each time.
        raise jinja2.TemplateError(f"`{self.label}` is a mapping: name one of its values")

    def _below(self, label: str, known: Any) -> Any:
        """A name as the template at `label` sees it: what that template asks for must not ask for it again."""
        if not isinstance(known, Scope) or isinstance(known, EnvironmentScope):
            return known
        return Scope(known.label, known._tree, known._names, (*self._rendering, label))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)


class EnvironmentScope(Scope):
    """The environment of this command. A template reads variables by name, and no secrets: what it gives is written
    into files that others may read."""

    def __init__(self, environ: Mapping[str, str]):
        super().__init__("env", environ, {})

    @property
    def names(self) -> list[str]:
        return list(self._tree)

    def __getitem__(self, key: str) -> Any:
        value = self._tree[key]
        if is_secret(key):
            raise jinja2.TemplateError(f"env.{key} looks like a secret: list it under `secrets: [{key}]` instead")
        return value

    def __iter__(self) -> Iterator[str]:
        raise jinja2.TemplateError("`env` is read by name only, as in {{ env.HOME }}")

    def __len__(self) -> int:
        return len(list(self))

    def __repr__(self) -> str:
        return str(list(self))


def render(value: Any, names: Mapping[str, Any], path: KeyPath = ()) -> Any:
    """`value` with all of its templates filled in from `names`.

    A text that is one expression (`"{{ vars.lr }}"`) becomes that expression's value with its type; any other
    template stays a text. Raises `ConfigError` with the path of the value.
    """
    match value:
        case Verbatim():
            return str(value)
        case str() if has_template(value):
            return _render_text(value, names, path)
        case dict():
            return {key: render(inner, names, (*path, key)) for key, inner in value.items()}
        case list():
            return [render(inner, names, (*path, index)) for index, inner in enumerate(value)]
    return value


def _render_text(text: str, names: Mapping[str, Any], path: KeyPath) -> Any:
    try:
        body = _ENV.parse(text).body
        if len(body) == 1 and isinstance(body[0], nodes.Output):
            parts = body[0].nodes
            if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData):
                expression = re.sub(r"^\{\{[-+]?|[-+]?\}\}$", "", text.strip())
                value = _ENV.compile_expression(expression, undefined_to_none=False)(**names)
                if isinstance(value, jinja2.Undefined):
                    value = str(value)  # raises
                return _plain(value)
        return _plain(_ENV.from_string(text).render(**names))
    except ConfigError as error:
        raise error.located(lambda _: "", lambda _: path) from None
    except RecursionError:
        raise ConfigError.at(path, f"calls itself without end (in {_short(text)})") from None
    except MemoryError:
        raise ConfigError.at(path, f"needs more than {MEMORY >> 30} GiB of memory (in {_short(text)})") from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise ConfigError.at(path, f"{error.args[0] if error.args else error} (in {_short(text)})") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:197]}...")


def _plain(value: Any) -> Any:
    """A template's value as plain YAML types, each of a size that a message can show."""
    match value:
        case str() if len(value) > LENGTH:
            raise ValueError(f"gives a text of {len(value):,} characters, at most {LENGTH:,} are taken")
        case int() if value.bit_length() > 1024:
            raise ValueError("gives a number of more than 300 digits")
        case Scope() | dict():
            return {str(key): _plain(value[key]) for key in value}
        case str() | bool() | int() | float() | None:
            return value
        case list() | tuple() | range():
            return [_plain(inner) for inner in value]
    raise TypeError(f"gives a {type(value).__name__}, which is no YAML value")
