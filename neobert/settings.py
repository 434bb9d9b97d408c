"""The settings of a command: from a YAML file, from `key=value` arguments, or from a line of a manifest."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import (
    TASKS,
    ConfigError,
    Problem,
    Source,
    Strict,
    nearest,
    parse_value,
    read_yaml,
    set_at,
    validate,
)
from neobert.config.base import KeyPath
from neobert.config.legacy import GUIDE, is_legacy, translate
from neobert.training.distributed import find_ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What to do, and with which settings."""

    task: str
    config: Strict


def from_command_line(task: str, file: Path | None, overrides: Sequence[str]) -> Settings:
    """The settings of `file`, with every `key=value` (dotted key, YAML value) put over them; raises `ConfigError`."""
    source = read_yaml(file) if file else Source("command line", {})
    data = {} if source.data is None else source.data
    if not isinstance(data, dict):
        raise ConfigError([Problem((), "expected a mapping of settings", source.where(()))])
    given = dict(map(_override, overrides))
    if task == "pretrain" and is_legacy(data):
        data = _translated(data, given, source)
    for path, value in given.items():
        set_at(data, path, value)

    def where(path: KeyPath) -> str:
        on_command_line = any(path[: len(key)] == key or key[: len(path)] == path != () for key in given)
        return "command line" if on_command_line else source.where(path)

    return Settings(task, validate(TASKS[task], data, where))


def _override(text: str) -> tuple[KeyPath, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{text!r}: expected key=value, as in optimizer.lr=3e-5")
    return tuple(key.split(".")), parse_value(value)


def _translated(data: dict[str, Any], given: dict[KeyPath, Any], source: Source) -> dict[str, Any]:
    """The settings of a file of older NeoBERT code, less what is `given` on the command line, in today's words."""
    data = copy.deepcopy(data)
    for path in given:
        inner: Any = data
        for part in path[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(path[-1], None)
    try:
        data, notices = translate(data, given)
    except ConfigError as error:
        raise error.located(source.where) from None
    if find_ranks(dict(os.environ)).is_main:
        log.warning("%s is of older NeoBERT code, and is translated (%s)", source.name, GUIDE)
        for notice in notices:
            log.warning("%s", notice)
    return data


def from_manifest(manifest: Path, index: int) -> Settings:
    """The trial in line `index` (from 0) of a file of JSON lines with `task` and `config`; raises `ConfigError`."""
    try:
        # Not splitlines(), which also splits at characters that may stand inside a JSON text.
        lines = manifest.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem((), f"cannot be read: {error}", str(manifest))]) from None
    if not 0 <= index < len(lines):
        raise ConfigError([Problem((), f"has {len(lines)} trials, so there is no number {index}", str(manifest))])
    where = f"{manifest}:{index + 1}"
    try:
        trial = json.loads(lines[index])
        task, config = trial["task"], trial["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError([Problem((), f"is no trial with task and config: {error!r}", where)]) from None
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError([Problem(("task",), f"{task!r} is not known{nearest(str(task), TASKS)}", where)])
    return Settings(task, validate(TASKS[task], config, lambda path: where))
