"""One writer per trial: an attempt that has been replaced stops, and leaves the trial's files alone.

When a node loses its network, Slurm declares it dead and starts the job again elsewhere; but on that node the old
processes may well live on, and a file system that comes back shows them the very directory that the new ones write to.
Nobody can end them from outside. So each attempt has a number, larger than any before it, and the file `lease` of the
trial holds the number of the attempt that may write: a fencing token. It is written before the attempt starts (by the
job script; without one, by the main process), and whoever finds a larger number than its own there has been replaced.
It then ends at once, with exit code 86 and without tidying up: every file by now belongs to the other one.

An attempt looks every five seconds, and right before every write that others rely on. Between that look and the write
there is still a moment, in which a process may be held up for long (stopped, or waiting for the file system). So
- a new attempt whose predecessor may be alive first waits (`RECIPE_LEASE_WAIT` seconds), until that one has looked;
- checkpoints are written in a directory of the attempt's own and renamed into place as a whole: what a late rename
  could still do is to put one complete checkpoint of this trial in the place of another one of the same step.

The file is opened anew for each look, because that is when NFS asks the server. While it cannot be read, or shows the
number of an earlier attempt, nothing is written; a short disturbance does no harm, and after half a minute the lease
counts as lost.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from neobert.config import private
from neobert.errors import LOST_LEASE, RunError

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_BETWEEN_TRIES = 1.0
PATIENCE = 30.0
"""How many seconds the file may show anything else than this attempt's claim, unless it is a later one."""


@dataclass(frozen=True)
class Claim:
    """What the file holds. `owner` tells two apart that were started by hand and took the same number at once."""

    attempt: int
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.attempt} {self.owner}".rstrip()

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Raises `ValueError` for a text that is no claim."""
        number, _, owner = text.strip().partition(" ")
        if not number.isdecimal():
            raise ValueError(f"expected the number of an attempt, found {text[:40]!r}")
        return cls(int(number), owner)

    def replaces(self, other: Claim) -> bool:
        return self.attempt > other.attempt or (self.attempt == other.attempt and self.owner != other.owner)


class Lease:
    """This attempt's right to write, as long as the file says so."""

    def __init__(self, path: Path, claim: Claim):
        self.path = path
        self.claim = claim

    def check(self) -> None:
        """Returns if this attempt may write, and ends the process if it may not."""
        start = time.monotonic()
        while True:
            try:
                found = _read(self.path)
                if found == self.claim:
                    return
                trouble = f"holds the number {found.attempt}"
            except OSError as error:
                found, trouble = None, f"could not be read ({error.strerror})"
            except ValueError as error:
                found, trouble = None, f"could not be read ({error})"
            if found and found.replaces(self.claim):
                self._end(f"attempt {found.attempt} of this trial has started")
            if time.monotonic() - start >= PATIENCE:
                self._end(f"for {PATIENCE:.0f} s, {self.path} {trouble}")
            time.sleep(SECONDS_BETWEEN_TRIES)

    def _end(self, reason: str) -> NoReturn:
        # Neither print nor sys.exit: another thread may be in the middle of a write, and nothing may be tidied up.
        line = f"neobert: attempt {self.claim.attempt} lost the lease and stops without touching anything: {reason}\n"
        os.write(2, line.encode())
        os._exit(LOST_LEASE)


_held: Lease | None = None
"""That of this process: it works on one trial at a time, as it is in one default process group."""


def claim(path: Path, environ: Mapping[str, str], is_main: bool) -> Claim | None:
    """This attempt's claim: the one that the launcher made (`RECIPE_ATTEMPT`), or else a new one of the main process.

    None in the other processes of an attempt without launcher: once they have met the main one, the file tells. Ends
    the process when the launcher has started a later attempt by now; raises `RunError` when the file holds no claim.
    """
    if "RECIPE_ATTEMPT" in environ:
        ours = Claim(_attempt_number(environ))
        if is_main:
            with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
                file.write(f"{ours}\n")  # not claimed yet: it was not the job script that started this
        Lease(path, ours).check()
        return ours
    if not is_main:
        return None
    try:
        before = _read(path).attempt
    except FileNotFoundError:
        before = 0
    except ValueError as error:
        raise RunError(f"{path}: {error}. It may be removed when nothing else works on this trial") from None
    ours = Claim(before + 1, f"{socket.gethostname()}:{os.getpid()}")
    _replace(path, ours)
    return ours


@contextmanager
def hold(path: Path, claim: Claim | None) -> Iterator[Claim]:
    """While the block runs, the lease is looked at again and again, and `check` and `attempt` speak of it."""
    global _held
    lease = _held = Lease(path, claim or _read(path))
    lease.check()
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(lease, over), name="lease", daemon=True)
    watch.start()
    try:
        yield lease.claim
    except Exception:
        # Another process of this attempt may have seen first that the lease is lost: what went wrong here is its end.
        lease.check()
        raise
    finally:
        over.set()
        watch.join(SECONDS_BETWEEN_TRIES)  # no longer: it may be waiting for the file system
        _held = None


def outwait_predecessor(environ: Mapping[str, str], started: float) -> None:
    """Gives a predecessor that may be alive `RECIPE_LEASE_WAIT` seconds, from `started` (monotonic) on, to notice.

    Until then nothing may be read that it may write: the newest checkpoint above all.
    """
    seconds = started + _seconds(environ, "RECIPE_LEASE_WAIT") - time.monotonic()
    if seconds > 0:
        log.info("waiting %.0f s for an earlier attempt, which may still be alive, to stop writing", seconds)
        time.sleep(seconds)


def check() -> None:
    """To be called right before every write that others rely on; ends the process if this attempt may not write."""
    if _held is not None:
        _held.check()


def attempt() -> int:
    """The number of this attempt; 0 outside of a trial."""
    return _held.claim.attempt if _held is not None else 0


def _watch(lease: Lease, over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_LOOKS):
        lease.check()


def _read(path: Path) -> Claim:
    return Claim.parse(path.read_text(encoding="utf-8"))


def _replace(path: Path, claim: Claim) -> None:
    aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with private.create(aside) as file:
        file.write(f"{claim}\n".encode())
    aside.replace(path)


def _attempt_number(environ: Mapping[str, str]) -> int:
    text = environ["RECIPE_ATTEMPT"]
    if not text.isdecimal() or int(text) < 1:
        raise RunError(f"RECIPE_ATTEMPT: expected a number from 1, found {text!r}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str) -> float:
    try:
        return float(environ.get(name) or 0)
    except ValueError:
        raise RunError(f"{name}: expected a number of seconds, found {environ[name]!r}") from None
