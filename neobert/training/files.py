"""The files of a trial, and ways to write them that a crash cannot leave half done.

All of them first ask whether this attempt of the trial still may write (`neobert.training.lease`).
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import private
from neobert.errors import RunError
from neobert.training import lease


@dataclass(frozen=True)
class TrialFiles:
    """Every path in a trial's output directory."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def progress(self) -> Path:
        return self.directory / "progress.json"

    @property
    def metrics(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def result(self) -> Path:
        return self.directory / "result.json"

    @property
    def lease(self) -> Path:
        """The number of the attempt that may write: `neobert.training.lease`."""
        return self.directory / "lease"

    @property
    def preflight(self) -> Path:
        """Why the newest attempt could not start, if it could not: `neobert.training.preflight`."""
        return self.directory / "preflight.json"

    @property
    def predictions(self) -> Path:
        """A file for each test set."""
        return self.directory / "predictions"

    @property
    def all_results(self) -> Path:
        return self.directory / "all_results.json"

    def eval_results(self, dev_set: str = "") -> Path:
        return self.directory / f"eval_results{dev_set}.txt"

    def step_result(self, step: int) -> Path:
        """What the evaluation at a step came to."""
        return self.directory / f"all_results_step_{step}.json"

    def step_results(self) -> list[tuple[int, Path]]:
        found = self.directory.glob("all_results_step_*.json")
        return [(int(number), path) for path in found if (number := path.stem.rpartition("_")[2]).isdecimal()]

    @property
    def tensorboard(self) -> Path:
        return self.directory / "tensorboard"

    @property
    def profile(self) -> Path:
        return self.directory / "profile"

    @property
    def model(self) -> Path:
        """What a pretraining has made, as a Hugging Face model with its tokenizer."""
        return self.directory / "model"

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def trained_on(self) -> Path:
        """What data the checkpoints have seen: `neobert.training.resuming`."""
        return self.checkpoints / "data.json"


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Replaces a file at once: whoever reads it sees the old or the new one. `durable` survives a power cut too."""
    # Processes of two nodes may have the same number.
    aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    lease.check()
    try:
        with _naming(path):
            with private.create(aside) as file:
                file.write(text.encode())
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if durable:
                lease.check()  # again: that may have taken long
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an error say which file it is about: of a full disk, the system does not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Raises `RunError` for a file that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: expected a mapping")
    return found


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    write_text(path, to_json(value, indent=2) + "\n", durable)


def sync_directory(directory: Path) -> None:
    """Makes creations, renames and removals in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_json_line(path: Path, value: Any) -> None:
    lease.check()
    with _naming(path), private.append(path) as file:
        file.write(to_json(value).encode() + b"\n")


def drop_lines_after(path: Path, step: int) -> None:
    """Forgets what metrics.jsonl says of steps after `step`, which a resumed run is about to do again.

    So its steps never go back, and none is there twice. Lines that a crash has damaged go as well.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            known = json.loads(line)["step"] <= step
        except (ValueError, TypeError, KeyError):
            continue
        if known:
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader accepts: a number that is not finite becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
