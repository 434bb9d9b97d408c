"""Which checkpoints stay once a training is done, and the removal of the others.

A training removes them itself, right after it has written its result. `recipe clean` does the same for trials of
versions that kept everything, and for trials that were killed on the way. Both use this module, so it needs no torch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

Keep = Literal["best", "last", "all"]

DEFAULTS: Mapping[str, Keep] = {"glue": "best", "pretrain": "last"}
"""The default of each task: a fine-tuning is there for its model, and other trainings go on from a pretraining."""

MARKER = "complete.json"
"""The file that makes a checkpoint count: it lists the size of every other file."""

FINISHED = "finished.json"
"""How a training ended, for the case that its last checkpoint was removed. Lies beside the checkpoints."""

UNFINISHED = ("partial-*", "universal-*")
"""Directories that interrupted saves, and interrupted conversions of DeepSpeed's shards, leave beside checkpoints."""

_STATE = ("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth", "used_rows.npy", "place.json",
          "global_step*", "latest", "zero_to_*.py")  # fmt: skip
"""Training state: what a checkpoint holds beside the model, so that a training can go on from it."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class NotWhole(Exception):
    """Raised when something that is to stay is missing or damaged, so that nothing may be removed."""


@dataclass(frozen=True)
class Surplus:
    """The parts of a trial that can be removed.

    `texts` are files to write first, in their order. Then `states` can go, which lie beside models that stay, and
    `checkpoints`, whole directories. The models that stay can be used at every moment in between.
    """

    texts: Mapping[Path, str] = field(default_factory=dict)
    states: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()


def surplus(trial: Path, task: str, keep: Keep | None) -> Surplus:
    """Return what need not stay of a trial that has its result; None means the default of its task.

    Raises `NotWhole`, and `OSError` where a file cannot be read.
    """
    keep, directory = keep or DEFAULTS[task], trial / "checkpoints"
    there = dict(numbered(directory))
    if keep == "all" or not there:
        return Surplus()
    markers = {step: marker for step, path in there.items() if (marker := _marker(path)) is not None}
    last = max(markers, default=None)
    stays = _stays(trial, task, keep, last)
    _check(there, markers, stays)
    states = {step: _states(there[step]) for step, whole in stays.items() if not whole}
    texts = {there[step] / MARKER: _without(markers[step], gone) for step, gone in states.items() if gone}
    if last is not None and not stays.get(last) and not (directory / FINISHED).exists():
        texts = {directory / FINISHED: _ending(there[last], last, min(states, default=None)), **texts}
    return Surplus(
        texts=texts,
        states=tuple(path for gone in states.values() for path in gone),
        checkpoints=tuple(path for step, path in sorted(there.items()) if step not in stays and not path.is_symlink()),
    )


def remove(spare: Surplus, write: Callable[[Path, str], None]) -> None:
    """Remove it. `write` must replace a file atomically. After an interruption, doing the same again completes it."""
    for path, text in spare.texts.items():
        write(path, text)
    for path in (*spare.states, *spare.checkpoints):
        discard(path)


def discard(path: Path) -> None:
    """Remove a file or a directory; links are removed and never followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    (path / MARKER).unlink(missing_ok=True)  # the rest, after an interruption, is then not taken for a checkpoint
    shutil.rmtree(path)


def numbered(checkpoints: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and directory of each checkpoint, complete or not."""
    for path in checkpoints.glob("checkpoint-*"):
        number = re.fullmatch(r"checkpoint-([0-9]+)", path.name)
        if number and path.is_dir():
            yield int(number[1]), path


def bytes_text(count: int) -> str:
    """`0 B`, `1.6 MB`, `92 MB`, `4.6 GB`: in powers of ten, as disks are sold."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    digits = 1 if size < 9.95 and units[0] != "B" else 0
    return f"{size:.{digits}f} {units[0]}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(map(size_of, path.iterdir()))


def _stays(trial: Path, task: str, keep: Keep, last: int | None) -> dict[int, bool]:
    """The steps of the checkpoints that stay, each with whether its training state stays too."""
    if task == "pretrain":
        if keep == "best" and not _has_weights(trial / "model"):
            raise NotWhole(f"{trial / 'model'} has no weights")
        return {} if keep == "best" else {_known(trial, last): True}
    stays = {_best_step(trial / "result.json"): False}
    return stays if keep == "best" else stays | {_known(trial, last): True}


def _best_step(result: Path) -> int:
    try:
        return int(json.loads(result.read_text(encoding="utf-8"))["step"])
    except (ValueError, KeyError, TypeError):
        raise NotWhole(f"{result} does not name the step of the best model") from None


def _known(trial: Path, last: int | None) -> int:
    if last is None:
        raise NotWhole(f"{trial / 'checkpoints'} holds no complete checkpoint")
    return last


def _check(there: Mapping[int, Path], markers: Mapping[int, Any], stays: Mapping[int, bool]) -> None:
    """Raises `NotWhole` unless everything that is to stay is complete, and not a link."""
    for step in stays:
        if step not in markers:
            raise NotWhole(f"checkpoint-{step} is missing or incomplete")
        if there[step].is_symlink():
            raise NotWhole(f"{there[step]} is a link")


def _marker(checkpoint: Path) -> dict[str, Any] | None:
    """Content of a checkpoint's marker, or None where a file that it lists is missing or was cut short."""
    try:
        marker: dict[str, Any] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        whole = all((checkpoint / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return marker if whole and _has_weights(checkpoint) else None


def _has_weights(directory: Path) -> bool:
    """Return whether a whole model lies there, and not DeepSpeed's shards alone."""
    return any((directory / name).is_file() for name in _WEIGHTS)


def _states(checkpoint: Path) -> list[Path]:
    """Files and directories of training state in a checkpoint."""
    return sorted(path for path in checkpoint.iterdir() if any(fnmatch(path.name, pattern) for pattern in _STATE))


def _without(marker: Mapping[str, Any], states: list[Path]) -> str:
    """The marker as it is to be once these are removed."""
    gone = {path.name for path in states}

    def left(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: about for name, about in value.items() if name.partition("/")[0] not in gone}

    return json.dumps({key: left(value) for key, value in marker.items()}, indent=2) + "\n"


def _ending(checkpoint: Path, step: int, model: int | None) -> str:
    """The text of `FINISHED`: Trainer's state at the last checkpoint, and the step of the model that stays."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotWhole(f"{checkpoint / 'trainer_state.json'} is damaged: {error}") from None
    processes = sum(1 for _ in checkpoint.glob("rng_state*.pth"))
    return json.dumps({"schema": 1, "step": step, "processes": processes, "model": model, "state": state}) + "\n"
