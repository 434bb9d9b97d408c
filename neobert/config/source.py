"""Reads YAML as YAML 1.2 and remembers on which line every value stands.

PyYAML follows YAML 1.1, where `1e-5` is a string, `01:30:00` is 5400, `no` is false and `010` is 8. Each of these has
ruined somebody's sweep, so scalars are resolved by the YAML 1.2 core schema here, and a repeated key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from neobert.config.base import ConfigError, KeyPath, Problem

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 5_000_000
MAX_NODES = 200_000
"""Values in a file, those that aliases repeat counted each time."""
MAX_DEPTH = 64
MAX_DIGITS = 300
"""In a number: enough for every float, and few enough to print it in a message."""
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))


class _Loader(_Base):  # the C loader where PyYAML was built with it
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789")
_resolve("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_resolve("merge", "<<", "<")


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MAX_DIGITS:
        raise yaml.MarkedYAMLError(problem=f"a number of {len(text)} digits", problem_mark=node.start_mark)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _construct_float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else, as `1e5` and `no`."""


for _first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}:
    _older, _newer = (known.yaml_implicit_resolvers.get(_first, []) for known in (yaml.SafeDumper, _Loader))
    _Dumper.yaml_implicit_resolvers = {**_Dumper.yaml_implicit_resolvers, _first: [*_older, *_newer]}


def _represent_text(dumper: Any, text: str) -> Any:
    style = '"' if set(text) & set("\x85\u2028\u2029\ufeff") else None  # line breaks to some parsers: written as \N
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back as the same values, and other programs too."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


@dataclass
class Source:
    """The contents of a YAML file: `data` in plain Python types, and the line of every key path in it."""

    name: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line` of the value at `path`, or of the nearest mapping around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def read_yaml(path: Path | str) -> Source:
    """Reads a YAML file; raises `ConfigError` when it is missing, unreadable, too large, or no YAML."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError.at((), f"is larger than {MAX_BYTES / 1e6:g} MB, which no settings file is", str(path))
        text = content.decode("utf-8")
    except OSError as error:
        raise ConfigError.at((), f"cannot be read: {error.strerror}", str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError.at((), f"is not UTF-8 text (byte {error.start})", str(path)) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Source:
    """Parses YAML text; `name` stands for the file in messages."""
    if "\x85" in text:  # a line break to this parser and not in YAML 1.2: it would come out as another character
        line = text[: text.index("\x85")].count("\n") + 1
        message = r'holds the character U+0085; write it as "\x85" in double quotes'
        raise ConfigError.at((), message, f"{name}:{line}")
    source = Source(name, None)
    try:
        _check_size(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _record(node, (), source)
                source.data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError.at((), f"is not valid YAML: {error.problem or error.context}", where) from None
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise ConfigError.at((), f"is not valid YAML: {error}", name) from None
    return source


def _check_size(text: str) -> None:
    """Raise `yaml.MarkedYAMLError` for text that would take too much time, memory or stack to read.

    The parser's events are counted before any value is made: nesting is bounded, and an alias counts as all the values
    that it repeats.
    """
    event: Any
    sizes: dict[str, int] = {}  # values below each anchor
    open_nodes: list[tuple[str | None, int]] = []  # the anchor of each collection, and the count before it
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.AliasEvent():
                if any(event.anchor == anchor for anchor, _ in open_nodes):
                    raise _refused(f"*{event.anchor} contains itself", event)
                count += sizes.get(event.anchor or "", 1)
            case yaml.CollectionStartEvent():
                _check_tag(event)
                open_nodes.append((event.anchor, count))
                count += 1
            case yaml.CollectionEndEvent():
                anchor, before = open_nodes.pop()
                if anchor:
                    sizes[anchor] = count - before
            case yaml.ScalarEvent():
                _check_tag(event)
                count += 1
        if len(open_nodes) > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH}", event)
        if count > MAX_NODES:
            raise _refused(f"more than {MAX_NODES:,} values", event)


def _check_tag(event: Any) -> None:
    if event.tag not in (None, "!") and event.tag not in _CORE_TAGS:
        shown = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise _refused(f"the tag {shown} is not read here: write a plain text, number, list or mapping", event)


def _refused(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def parse_value(text: str, name: str | None = None) -> Any:
    """A value as it would be read from a YAML file (`3`, `[1, 2]`, `null`, `1e-5`); raises `ConfigError`."""
    try:
        return parse_yaml(text, "").data
    except ConfigError as error:
        problems = [Problem((), problem.message, name or repr(text)) for problem in error.problems]
        raise ConfigError(problems) from None


def _record(node: Any, path: KeyPath, source: Source, line: int | None = None) -> None:
    """Notes the line of `node` and of all below it; for a mapping's value that is the line of its key."""
    source.lines.setdefault(path, (node.start_mark.line if line is None else line) + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' stands here twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
            _record(value, (*path, key.value), source, key.start_mark.line)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record(value, (*path, index), source)


def set_at(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Sets a nested value, making the mappings on the way; raises `ConfigError` where the way is blocked."""
    for index, part in enumerate(path[:-1]):
        inner = data.get(str(part))
        if inner is None:
            inner = data[str(part)] = {}
        elif not isinstance(inner, dict):
            raise ConfigError.at(path[: index + 1], f"is {inner!r}, so nothing can be set inside it")
        data = inner
    data[str(path[-1])] = value
