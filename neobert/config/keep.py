"""What stays of a training's checkpoints once it is done.

A training removes the rest itself when its result is written. `recipe clean` does it for trials of versions that did
not, and for those that were killed in the middle of it. Both ask here, so nothing in this module needs torch.
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
"""By task: a fine-tuning is done when its model is there; others may go on from the state of a pretraining."""

MARKER = "complete.json"
"""In a checkpoint that was written to its end: the size of every file."""

FINISHED = "finished.json"
"""Beside the checkpoints of a training whose last state was removed: how that training ended."""

UNFINISHED = ("partial-*", "universal-*")
"""Beside checkpoints: what an interrupted save, or an interrupted conversion of DeepSpeed's shards, has left."""

_STATE = ("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth", "used_rows.npy", "place.json",
          "global_step*", "latest", "zero_to_*.py")  # fmt: skip
"""What a checkpoint holds for a training to go on, beside the model: Hugging Face's files, ours and DeepSpeed's."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class NotWhole(Exception):
    """What is to stay is missing or damaged, so nothing may be removed."""


@dataclass(frozen=True)
class Surplus:
    """What can be removed of a trial that is done.

    `texts` are to be written first, in their order; then `states` go, which lie beside models that stay, and
    `checkpoints`, directories as a whole. What stays is usable at every moment in between.
    """

    texts: Mapping[Path, str] = field(default_factory=dict)
    states: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()


def surplus(trial: Path, task: str, keep: Keep | None) -> Surplus:
    """Return what does not stay of a trial that has its result. None: as is the default of its task.

    Raises `NotWhole`, and `OSError` or `ValueError` where a file of the trial cannot be read.
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
    """Remove it; `write` replaces a file at once. Interrupted anywhere, the same again completes it."""
    for path, text in spare.texts.items():
        write(path, text)
    for path in (*spare.states, *spare.checkpoints):
        discard(path)


def discard(path: Path) -> None:
    """Remove a file or a directory; links are removed and never followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    (path / MARKER).unlink(missing_ok=True)  # what an interruption leaves behind is then not taken for a checkpoint
    shutil.rmtree(path)


def numbered(checkpoints: Path) -> Iterator[tuple[int, Path]]:
    """Yield the step and the directory of each checkpoint, complete or not."""
    for path in checkpoints.glob("checkpoint-*"):
        number = re.fullmatch(r"checkpoint-([0-9]+)", path.name)
        if number and path.is_dir():
            yield int(number[1]), path


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(map(size_of, path.iterdir()))


def _stays(trial: Path, task: str, keep: Keep, newest: int | None) -> dict[int, bool]:
    """The steps whose checkpoints stay, each with whether all of it does."""
    if task == "pretrain":
        if keep == "best" and not _has_weights(trial / "model"):
            raise NotWhole(f"{trial / 'model'} has no weights")
        return {} if keep == "best" else {_last(trial, newest): True}
    result = json.loads((trial / "result.json").read_text(encoding="utf-8"))
    stays = {result["step"]: False}
    return stays if keep == "best" else stays | {_last(trial, newest): True}


def _check(there: Mapping[int, Path], markers: Mapping[int, Any], stays: Mapping[int, bool]) -> None:
    """Raises `NotWhole` unless all that is to stay is there as a whole, and was put there by a training."""
    for step in stays:
        if step not in markers:
            raise NotWhole(f"checkpoint-{step} is missing or incomplete")
        if there[step].is_symlink():
            raise NotWhole(f"{there[step]} is a link")


def _last(trial: Path, newest: int | None) -> int:
    if newest is None:
        raise NotWhole(f"{trial / 'checkpoints'} holds no complete checkpoint")
    return newest


def _marker(checkpoint: Path) -> dict[str, Any] | None:
    """What the marker of a checkpoint says, or None where one of its files is missing or was cut short."""
    try:
        marker: dict[str, Any] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        whole = all((checkpoint / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return marker if whole and _has_weights(checkpoint) else None


def _has_weights(directory: Path) -> bool:
    """Whether a model lies there as a whole, and not in DeepSpeed's shards alone."""
    return any((directory / name).is_file() for name in _WEIGHTS)


def _states(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.iterdir() if _is_state(path.name))


def _is_state(name: str) -> bool:
    return any(fnmatch(name.partition("/")[0], pattern) for pattern in _STATE)


def _without(marker: Mapping[str, Any], states: list[Path]) -> str:
    """The marker once these are gone."""
    gone = {path.name for path in states}

    def left(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: said for name, said in value.items() if name.partition("/")[0] not in gone}

    return json.dumps({key: left(value) for key, value in marker.items()}, indent=2) + "\n"


def _ending(checkpoint: Path, step: int, model: int | None) -> str:
    """What a training remembers of itself at its last checkpoint, and the step of the model that stays."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    processes = sum(1 for _ in checkpoint.glob("rng_state*.pth"))
    return json.dumps({"schema": 1, "step": step, "processes": processes, "model": model, "state": state}) + "\n"
