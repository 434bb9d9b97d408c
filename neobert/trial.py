"""The start of a trial in its output directory: is it new, to be resumed, done already, or another one's?"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, Problem, Strict, dotted, dump_yaml, read_yaml, validate
from neobert.config.keep import FINISHED
from neobert.training import lease
from neobert.training.files import TrialFiles, write_text
from neobert.training.lease import Claim


def open_trial(directory: Path, task: str, config: Strict, writes: bool) -> TrialFiles:
    """The files of the trial; makes its directory (only where `writes`), and nothing in it.

    Raises `ConfigError` when the directory cannot be made, or holds checkpoints or the result of a trial with other
    settings, or with nobody knows which: to resume it with these would give a result that belongs to neither.
    """
    paths = TrialFiles(directory)
    if _is_under_way(paths) and paths.config.exists():
        _compare(paths.config, task, config)
    elif _is_under_way(paths) and writes:  # elsewhere, a file system may show the file a little later
        raise ConfigError.at((), f"is missing, so what is in its directory may be of other settings{_ADVICE}",
                             str(paths.config))  # fmt: skip
    elif writes:
        with _as_users_mistake(directory):
            directory.mkdir(parents=True, exist_ok=True)
    return paths


def write_settings(paths: TrialFiles, task: str, config: Strict) -> None:
    """Writes config.yaml, unless the trial has got somewhere with the one that is there."""
    if not _is_under_way(paths):
        settings = {"task": task, "config": config.model_dump(mode="json")}
        with _as_users_mistake(paths.directory):
            write_text(paths.config, dump_yaml(settings), durable=True)


def _is_under_way(paths: TrialFiles) -> bool:
    checkpoints = paths.checkpoints
    return paths.result.exists() or (checkpoints / FINISHED).exists() or any(checkpoints.glob("checkpoint-*"))


def is_done(paths: TrialFiles) -> bool:
    """Whether the trial has its result; raises `ConfigError` for one that is damaged."""
    try:
        json.loads(paths.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        message = "is damaged. Remove it, and the same command makes it anew, from the newest checkpoint"
        raise ConfigError.at((), message, str(paths.result)) from None
    return True


def claim_trial(paths: TrialFiles, environ: Mapping[str, str], is_main: bool) -> Claim | None:
    """`lease.claim` of the trial; raises `ConfigError` when its directory cannot be written to."""
    with _as_users_mistake(paths.directory):
        return lease.claim(paths.lease, environ, is_main)


@contextmanager
def _as_users_mistake(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise  # a full disk, a lost file server
        raise ConfigError([Problem((), f"cannot be written to: {error.strerror}", str(directory))]) from None


def _compare(path: Path, task: str, config: Strict) -> None:
    source = read_yaml(path)
    data = source.data
    if not isinstance(data, dict) or not {"task", "config"} <= set(data):
        raise ConfigError.at((), f"is damaged: expected the task and config of a trial{_ADVICE}", str(path))
    if data.get("task") != task:
        raise ConfigError([Problem(("task",), f"is {data.get('task')!r} there and {task!r} here{_ADVICE}", str(path))])
    theirs = validate(type(config), data.get("config"), lambda place: source.where(("config", *place)))
    differences = [
        f"{dotted(place)} is {there!r} there and {here!r} here"
        for place, there, here in _differences((), theirs.model_dump(mode="json"), config.model_dump(mode="json"))
        if dotted(place) not in config.may_change
    ]
    if differences:
        listed = "; ".join(differences)
        raise ConfigError([Problem((), f"this directory belongs to a trial with other settings: {listed}{_ADVICE}",
                                   str(path))])  # fmt: skip


_ADVICE = ". Choose another --output-dir, or remove this one"


def _differences(place: tuple[str, ...], there: Any, here: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            yield from _differences((*place, key), there.get(key), here.get(key))
    elif there != here:
        yield place, there, here
