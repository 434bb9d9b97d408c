"""Every path of a run directory, and the small files in it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, read_yaml


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new, also when this process or the machine dies."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
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
    """The mappings in a JSON-lines file (none if it is missing); a last line cut short by a crash is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ConfigError(f"{path}:{number}: is damaged: {error}") from None
    return rows


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

    def log(self, attempt: int) -> Path:
        return self.path / "logs" / f"attempt-{attempt}.log"


@dataclass(frozen=True, slots=True)
class RunDir:
    """`runs/<recipe>/<run>/`."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

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
    def code(self) -> Path:
        return self.path / "code"

    @property
    def queue(self) -> Path:
        """The local backend's jobs."""
        return self.path / "queue"

    def job(self, stage: str, digest: str) -> Path:
        """Script and manifest of one job of a stage; the digest is that of what it runs."""
        return self.path / "stages" / stage / digest

    def trial(self, trial_id: str) -> TrialDir:
        return TrialDir(self.path / "trials" / trial_id)


def new_run(runs: Path, recipe: str) -> RunDir:
    """The name of a run that does not exist yet; nothing is made."""
    name = stamp = time.strftime("%Y%m%d-%H%M%S")
    count = 1
    while (runs / recipe / name).exists():
        count += 1
        name = f"{stamp}-{count}"
    return RunDir(runs / recipe / name)


def list_runs(runs: Path, recipe: str = "*") -> list[RunDir]:
    """The runs of a recipe, or of all recipes, oldest first."""
    found = runs.glob(f"{recipe}/*/manifest.jsonl")
    return sorted((RunDir(path.parent) for path in found), key=lambda run: run.path.name)


def find_run(runs: Path, target: str | None) -> RunDir:
    """The run that a user means by a run's directory, by a recipe's name or file, or by nothing: then the newest.

    Raises `ConfigError` if there is none.
    """
    if target is not None and (Path(target) / "manifest.jsonl").is_file():
        return RunDir(Path(target).resolve())
    name = Path(target).stem if target is not None else "*"
    if target is not None and Path(target).is_file():
        name = str((read_yaml(target).data or {}).get("name", name))
    found = list_runs(runs, name)
    if not found:
        what = "no run" if target is None else f"no run of '{target}'"
        raise ConfigError(f"there is {what} in {runs}; `recipe submit` makes one, --runs tells where others are")
    return RunDir(found[-1].path.resolve())
