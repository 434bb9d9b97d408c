"""Checkpoints that are there completely or not at all.

Hugging Face writes a checkpoint file by file. Here it is written into a directory of this attempt's own, gets a
completion marker with the size and the checksum of every file, and is then renamed into place. What is read again is
compared with the marker: a copy or a quota may have cut a file short since, and a disk may have lost a page of it.
Markers of versions before hold sizes alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neobert.config import keep
from neobert.config.keep import numbered as _numbered
from neobert.errors import RunError
from neobert.training import checksums, lease
from neobert.training.files import sync_directory, write_json

log = logging.getLogger(__name__)

MARKER = keep.MARKER
_PARTIAL = "partial-"
_WEIGHTS = (".safetensors", ".bin")
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


def seal(written: Path, names: Iterable[str]) -> dict[str, str]:
    """Make files survive a power cut; return their checksums."""

    def seal_one(name: str) -> str:
        _sync_file(written / name)
        return checksums.checksum(written / name)

    return checksums.in_threads(seal_one, names)


def complete(
    written: Path, checkpoints: Path, seen: Iterable[str] = (), sealed: Mapping[str, str] | None = None
) -> Path:
    """Marks a written directory as complete and moves it into `checkpoints`; returns where it is then.

    `seen` are the files that all processes together see in it, and `sealed` what `seal` gave of those that other
    processes have sealed. What was written on another node may show here only after a while; raises `OSError` when it
    never does.
    """
    wait_for(written, seen)
    mark(written, sealed)
    final = checkpoints / written.name
    _put_in_place(written, final)
    return final


def wait_for(written: Path, seen: Iterable[str]) -> None:
    """Wait until all these files can be seen here; raise `OSError` when they never can."""
    expected = set(seen)
    if not _comes_true(lambda: expected <= inventory(written)):
        missing = ", ".join(sorted(expected - inventory(written)))
        raise OSError(f"other processes wrote {missing}, which cannot be seen here")


def mark(written: Path, sealed: Mapping[str, str] | None = None) -> None:
    """Write the completion marker of a directory: the size and the checksum of every file in it."""
    names = inventory(written) - {MARKER}
    known = dict(sealed or {})
    _write_marker(written, known | seal(written, names - known.keys()))


def mark_model(written: Path) -> None:
    """Mark a finished model as complete by its weights alone: people edit its small files."""
    known = seal(written, inventory(written) - {MARKER})
    _write_marker(written, {name: known[name] for name in known if weights(name) and name.endswith(_WEIGHTS)})


def _write_marker(written: Path, sealed: Mapping[str, str]) -> None:
    sizes = {name: (written / name).stat().st_size for name in sorted(sealed)}
    marker = {"schema": 1, "files": sizes, checksums.KIND: {name: sealed[name] for name in sizes}}
    write_json(written / MARKER, marker, durable=True)


def put_model_in_place(written: Path, final: Path) -> None:
    """Marks a model that was written into `staging` as complete, and moves it to where it is looked for."""
    mark_model(written)
    _put_in_place(written, final)


def _put_in_place(written: Path, final: Path) -> None:
    lease.check()
    if final.exists():  # an earlier attempt has got as far
        shutil.rmtree(final)
    written.rename(final)
    written.parent.rmdir()
    sync_directory(final.parent)


def everything(name: str) -> bool:
    return True


def weights(name: str) -> bool:
    """Select the files of a model; the others are read by a training that goes on from a checkpoint."""
    alone = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "latest", "zero_to_fp32")
    return "/" not in name and not name.startswith(alone)


def newest_complete(checkpoints: Path, used: Callable[[str], bool] = everything) -> Checkpoint | None:
    """The complete checkpoint with the most steps; others are skipped with a warning, as in `find_fault`."""
    for checkpoint in present(checkpoints):
        fault = find_damage(checkpoint.path, used)
        if fault is None:
            return checkpoint
        warn_of(checkpoint.path, fault)
    return None


def present(checkpoints: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints whose files are all there, the newest first; skip the others with a warning."""
    for step, path in sorted(_numbered(checkpoints), reverse=True):
        fault = find_absence(path) or find_no_state(path)
        if fault is None:
            yield _read(path, step)
        else:
            warn_of(path, fault)


def warn_of(path: Path, fault: str) -> None:
    log.warning("skipping the checkpoint %s: %s", path, fault)


def at_step(checkpoints: Path, step: int) -> Checkpoint:
    """Return the checkpoint of a step that the main process has chosen; raise `RunError` if it is not whole here.

    Nodes may see a file system at different moments, but all must resume from the same checkpoint. Contents are not
    compared: they have been, once for all processes.
    """
    path = checkpoints / f"checkpoint-{step}"
    if not _comes_true(lambda: find_absence(path) is None):
        raise RunError(f"{path} is complete where the main process is, but not here: {find_absence(path)}")
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


def find_fault(path: Path, used: Callable[[str], bool] = everything) -> str | None:
    """Return what is wrong with a directory that has a completion marker: all its files must be there, and whole.

    Contents are compared of the files that are `used`.
    """
    return find_absence(path) or find_damage(path, used)


def find_absence(path: Path) -> str | None:
    """Return which file is missing, or has another size than when it was written."""
    try:
        marker = _read_marker(path)
        files = marker["files"].items()
        unknown = marker["files"].keys() - marker.get(checksums.KIND, marker["files"]).keys()
    except FileNotFoundError:
        return f"it has no {MARKER}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MARKER} cannot be read ({error})"
    if unknown:
        return f"its {MARKER} is damaged: it has no checksum of {', '.join(sorted(unknown))}"
    for name, size in files:
        try:
            found = (path / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def find_damage(path: Path, used: Callable[[str], bool] = everything) -> str | None:
    """Return which file has other contents than when it was written; all files must be there."""
    marker = _read_marker(path)
    known = marker.get(checksums.KIND, {})
    if not known:
        _tell_unverified(path)
    names = [name for name in marker["files"] if used(name)]
    faults = checksums.in_threads(lambda name: checksums.damage_of(path / name, known.get(name)), names)
    return next((f"{name} {fault}" for name, fault in faults.items() if fault), None)


@cache
def _tell_unverified(path: Path) -> None:
    log.info("%s was written without checksums, by an older version: only the size of its weights is verified", path)


def find_no_state(path: Path) -> str | None:
    """Return why no training can go on from a complete directory."""
    try:
        _read(path, 0)
    except FileNotFoundError:
        return "it has no trainer_state.json, so no training can go on from it"
    except (OSError, ValueError) as error:
        return f"its trainer_state.json cannot be read ({error})"
    return None


def _read_marker(path: Path) -> dict[str, Any]:
    return json.loads((path / MARKER).read_text(encoding="utf-8"))


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
