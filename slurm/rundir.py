"""Every path of a run directory, and the small files in it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, private, read_yaml
from slurm import locks

EXEC = "exec"
"""Beside a recipe's runs, the directory of what `recipe exec` tries out."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old text or the new, also when this process or the machine dies."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with private.create(temporary) as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:  # those of a full disk name no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file, or None if there is no such file; raises `ConfigError` for a damaged one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping, found {type(data).__name__}")
    return data


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The mappings in a JSON-lines file that was written as a whole; raises `ConfigError` where it is damaged."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The mappings in a JSON-lines file that grows; lines that a crash or a full disk cut short are passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def read_tail(path: Path, size: int = 256 * 1024) -> str:
    """The end of a log, in which the first process that failed has its say too; empty if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file that grows; a line that was cut short before it stays a line of its own."""
    with private.append(path) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end and (stream.seek(end - 1), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(line.encode() + b"\n")


UMASKS = {"private": 0o077, "group": 0o007}
"""The umask of each `runs_mode` of a cluster profile."""


@contextmanager
def access(mode: str | None, for_others_to_write: bool = True) -> Iterator[None]:
    """Makes files and directories for the user alone, or for their group as well; with None as the umask says."""
    before = os.umask(0o077)
    own = before if mode is None else UMASKS[mode]
    os.umask(own if for_others_to_write else own | 0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes that ask for the same directory out."""
    directory.mkdir(parents=True, exist_ok=True)
    with locks.locked(directory / ".lock", lambda holder: print(f"waiting for {holder}", file=sys.stderr), patience=3):
        yield


@dataclass(frozen=True, slots=True)
class TrialDir:
    path: Path

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def last_checkpoint(self) -> int | None:
        """The step of the newest complete checkpoint."""
        names = (path.parent.name for path in self.checkpoints.glob("checkpoint-*/complete.json"))
        numbers = (name.removeprefix("checkpoint-") for name in names)
        return max((int(number) for number in numbers if number.isdecimal()), default=None)

    def log(self, attempt: int) -> Path:
        return self.path / "logs" / f"attempt-{attempt}.log"

    def stale(self, attempt: int) -> Path:
        """What the attempts up to this one have made of inputs that were made again since."""
        return self.path / "stale" / f"attempt-{attempt}"

    def last_attempt(self) -> dict[str, Any]:
        """What attempts.jsonl says of the newest attempt, its lines taken together; empty where none has started.

        An older one that was thought dead may have written after it.
        """
        lines = [line for line in read_log(self.attempts) if isinstance(line.get("attempt"), int)]
        newest = max((line["attempt"] for line in lines), default=0)
        return {key: value for line in lines if line["attempt"] == newest for key, value in line.items()}


@dataclass(frozen=True, slots=True)
class RunDir:
    """`runs/<recipe>/<run>/`."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def profile(self) -> Path:
        """The cluster profile that it was last submitted with."""
        return self.path / "cluster.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def manifest(self) -> Path:
        """The run's trials, one a line: id, stage, task, point."""
        return self.path / "manifest.jsonl"

    @property
    def submissions(self) -> Path:
        """What was given to Slurm or to the local queue, one job a line."""
        return self.path / "submissions.jsonl"

    @property
    def cancellations(self) -> Path:
        """The array tasks that a user cancelled, one a line."""
        return self.path / "cancellations.jsonl"

    @property
    def code(self) -> Path:
        return self.path / "code"

    def needs(self, digest: str) -> Path:
        """Trials that trials of another stage need, one a line: id and stage; the digest is that of the lines."""
        return self.path / "needs" / f"{digest}.txt"

    @property
    def queue(self) -> Path:
        """The local backend's jobs."""
        return self.path / "queue"

    def job(self, stage: str, digest: str) -> Path:
        """Script and manifest of one job of a stage; the digest is that of what it runs."""
        return self.path / "stages" / stage / digest

    def trial(self, trial_id: str) -> TrialDir:
        return TrialDir(self.path / f"trials/{trial_id}")


def new_run(runs: Path, recipe: str) -> RunDir:
    """The name of a run that does not exist yet; nothing is made."""
    name = stamp = time.strftime("%Y%m%d-%H%M%S")
    count = 1
    while (runs / recipe / name).exists():
        count += 1
        name = f"{stamp}-{count}"
    return RunDir(runs / recipe / name)


def list_runs(runs: Path, recipe: str = "*") -> list[RunDir]:
    """The runs of a recipe, or of all recipes, the one that was submitted last at the end."""
    found = runs.glob(f"{recipe}/*/manifest.jsonl")
    return [RunDir(path.parent) for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))]


def find_run(runs: Path, target: str | None) -> RunDir:
    """The run that a user means by its directory or name, by a recipe's name or file, or by nothing: then the newest.

    Raises `ConfigError` if there is none.
    """
    if target is not None and (Path(target) / "manifest.jsonl").is_file():
        return RunDir(Path(target).resolve())
    found = list_runs(runs)
    if target is not None:
        names = {target, Path(target).stem}
        if Path(target).is_file():
            data = read_yaml(target).data
            names = {str(data["name"])} if isinstance(data, dict) and "name" in data else names
        found = [run for run in found if names & {run.path.name, run.path.parent.name}]
    if not found:
        what = "no run" if target is None else f"no run of '{target}'"
        raise ConfigError(f"there is {what} in {runs}; `recipe submit` makes one, --runs tells where others are")
    return RunDir(found[-1].path.resolve())
