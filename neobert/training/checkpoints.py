"""Checkpoints that are there completely or not at all.

Hugging Face writes a checkpoint file by file. Here it is written into a directory of this attempt's own, gets a
completion marker with the size of every file, and is then renamed into place. The marker is checked again before a
resume, because a copy or a quota may have cut a file short since.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import keep
from neobert.config.keep import numbered as _numbered
from neobert.errors import RunError
from neobert.training import lease
from neobert.training.files import sync_directory, write_json

log = logging.getLogger(__name__)

MARKER = keep.MARKER
_PARTIAL = "partial-"
SECONDS_TO_BE_SEEN = 90.0
"""After which a file written on one node must be seen on another; NFS remembers for 60 s what was not there."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; `state` is Hugging Face's trainer_state.json.

    After a training has ended, `path` may hold its best model alone. `step` and `state` are then those of its end, and
    `written_by` is the number of its processes.
    """

    path: Path
    step: int
    state: dict[str, Any]
    written_by: int | None = None

    @property
    def processes(self) -> int:
        """How many processes wrote it: each has left the state of its random numbers."""
        if self.written_by is not None:
            return self.written_by
        return sum(1 for _ in self.path.glob("rng_state*.pth"))

    @property
    def is_model_alone(self) -> bool:
        """True where no training can go on from it, because the training state was removed."""
        return not any(self.path.glob("rng_state*.pth"))


def staging(checkpoints: Path) -> Path:
    """Where this attempt writes a checkpoint before it is renamed into place; no other attempt writes there."""
    return checkpoints / f"{_PARTIAL}{lease.attempt()}"


def inventory(written: Path) -> set[str]:
    """The files of a directory that is being written, as this process sees them.

    Hidden ones are not counted: another process is about to rename them.
    """
    found = (path for path in written.rglob("*") if not path.name.startswith(".") and path.is_file())
    return {str(path.relative_to(written)) for path in found}


def complete(written: Path, checkpoints: Path, seen: Iterable[str] = ()) -> Path:
    """Marks a written directory as complete and moves it into `checkpoints`; returns where it is then.

    `seen` are the files that all processes together see in it. What one of them wrote on another node may show here
    only after a while; raises `OSError` when it never does.
    """
    expected = set(seen)
    if not _comes_true(lambda: expected <= inventory(written)):
        missing = ", ".join(sorted(expected - inventory(written)))
        raise OSError(f"other processes wrote {missing}, which cannot be seen here")
    sizes = {}
    for name in sorted(inventory(written)):
        _sync_file(written / name)
        sizes[name] = (written / name).stat().st_size
    write_json(written / MARKER, {"schema": 1, "files": sizes}, durable=True)
    final = checkpoints / written.name
    _put_in_place(written, final)
    return final


def put_model_in_place(written: Path, final: Path) -> None:
    """Moves a model that was written into `staging` to where it is looked for."""
    for name in inventory(written):
        _sync_file(written / name)
    _put_in_place(written, final)


def _put_in_place(written: Path, final: Path) -> None:
    lease.check()
    if final.exists():  # an earlier attempt has got as far
        shutil.rmtree(final)
    written.rename(final)
    written.parent.rmdir()
    sync_directory(final.parent)


def newest_complete(checkpoints: Path) -> Checkpoint | None:
    """The complete checkpoint with the most steps; incomplete ones are skipped with a warning."""
    for step, path in sorted(_numbered(checkpoints), reverse=True):
        fault = find_fault(path)
        if fault is None:
            return _read(path, step)
        log.warning("skipping the checkpoint %s: %s", path, fault)
    return None


def at_step(checkpoints: Path, step: int) -> Checkpoint:
    """The complete checkpoint of a step, which another process has found; raises `RunError` if there is none here.

    Nodes may see a file system at different moments, but all must resume from the same checkpoint.
    """
    path = checkpoints / f"checkpoint-{step}"
    if not _comes_true(lambda: find_fault(path) is None):
        raise RunError(f"{path} is complete where the main process is, but not here: {find_fault(path)}")
    return _read(path, step)


def at_path(path: Path) -> Checkpoint:
    """The complete checkpoint in this directory, whatever it is called."""
    state = _read(path, 0).state
    return Checkpoint(path, state["global_step"], state)


def _comes_true(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS_TO_BE_SEEN
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _read(path: Path, step: int) -> Checkpoint:
    return Checkpoint(path, step, json.loads((path / "trainer_state.json").read_text(encoding="utf-8")))


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, or None when it is complete."""
    try:
        files = json.loads((path / MARKER).read_text(encoding="utf-8"))["files"].items()
    except FileNotFoundError:
        return f"it has no {MARKER}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MARKER} cannot be read ({error})"
    for name, size in files:
        try:
            found = (path / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
        if _is_blank(path / name):
            return f"{name} holds zeros instead of data"
    try:
        _read(path, 0)
    except (OSError, ValueError) as error:
        return f"its trainer_state.json cannot be read ({error})"
    return None


def _is_blank(path: Path) -> bool:
    """Whether a file has lost its contents and kept its size, as in a copy or a file system that was cut off.

    None of the formats in a checkpoint begins with zeros. To look at all of them whole would take minutes.
    """
    with path.open("rb") as file:
        start = file.read(16)
    return bool(start) and not any(start)


def keep_newest(checkpoints: Path, limit: int, newest: int, best: int | None) -> None:
    """Deletes the oldest checkpoints until `limit` are left; never those of the steps `newest` and `best`.

    Directories of later steps are none of this run's: they were skipped as incomplete when it resumed.
    """
    numbered = sorted(entry for entry in _numbered(checkpoints) if entry[0] <= newest)
    spare = [path for step, path in numbered if step not in (newest, best)]
    for path in spare[: max(0, len(numbered) - limit)]:
        lease.check()
        # Without its marker first, what an interrupted deletion leaves behind is not taken for a checkpoint.
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def clear_partial(checkpoints: Path) -> None:
    """Removes what interrupted saves of this attempt and of earlier ones have left behind."""
    for path in checkpoints.glob(f"{_PARTIAL}*"):
        number = path.name.removeprefix(_PARTIAL)
        if number.isdecimal() and int(number) <= lease.attempt():
            shutil.rmtree(path, ignore_errors=True)


def _sync_file(path: Path) -> None:
    share(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(path: Path) -> None:
    """Lets those read and write a file who may do so in its directory: safetensors keeps its own from all others."""
    mode = path.parent.stat().st_mode & 0o666
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
