"""The start of a trial in its output directory: is it new, to be resumed, done already, or another one's?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from neobert.config import ConfigError, Problem, Strict, dotted, read_yaml, validate
from neobert.training.files import TrialFiles, write_text


def open_trial(directory: Path, task: str, config: Strict, writes: bool) -> TrialFiles:
    """The files of the trial; writes its config.yaml (only where `writes`).

    Raises `ConfigError` when the directory cannot be written to, or holds checkpoints or the result of a trial with
    other settings: to resume it with these would give a result that belongs to neither.
    """
    paths = TrialFiles(directory)
    if paths.config.exists() and (paths.result.exists() or any(paths.checkpoints.glob("checkpoint-*"))):
        _compare(paths.config, task, config)
    elif writes:
        settings = {"task": task, "config": config.model_dump(mode="json")}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_text(paths.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise ConfigError([Problem((), f"cannot be written to: {error.strerror}", str(directory))]) from None
    return paths


def _compare(path: Path, task: str, config: Strict) -> None:
    source = read_yaml(path)
    data = source.data if isinstance(source.data, dict) else {}
    if data.get("task") != task:
        raise ConfigError([Problem(("task",), f"is {data.get('task')!r} there and {task!r} here{_ADVICE}", str(path))])
    theirs = validate(type(config), data.get("config"), lambda place: source.where(("config", *place)))
    differences = list(_differences((), theirs.model_dump(mode="json"), config.model_dump(mode="json")))
    if differences:
        listed = "; ".join(
            f"{dotted(place)} is {there!r} there and {here!r} here" for place, there, here in differences
        )
        raise ConfigError([Problem((), f"this directory belongs to a trial with other settings: {listed}{_ADVICE}",
                                   str(path))])  # fmt: skip


_ADVICE = ". Choose another --output-dir, or remove this one"


def _differences(place: tuple[str, ...], there: Any, here: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            yield from _differences((*place, key), there.get(key), here.get(key))
    elif there != here:
        yield place, there, here
