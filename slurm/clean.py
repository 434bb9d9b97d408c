"""Finds and removes what a run no longer needs: the work of `recipe clean`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import TASKS, ConfigError, read_yaml, validate
from neobert.config.keep import (
    DEFAULTS,
    UNFINISHED,
    Keep,
    NotWhole,
    Surplus,
    bytes_text,
    discard,
    remove,
    size_of,
    surplus,
)
from slurm.kept import Demand, demands
from slurm.results import Table
from slurm.rundir import RunDir, locked, read_json, read_jsonl, write_atomically
from slurm.state import RunState, State, TrialState, run_state
from slurm.submissions import Ledger, in_flight


@dataclass(frozen=True)
class Spare:
    """The parts of a run that can be removed, and notes on trials that are left alone."""

    of_trials: Mapping[str, Surplus]
    partial: tuple[Path, ...]
    code: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, list[Path]]:
        """All paths to remove, by a description of what they are."""
        parts = self.of_trials.values()
        return {
            "other checkpoints of trials that are done": [path for part in parts for path in part.checkpoints],
            "optimizer and training state of their models": [path for part in parts for path in part.states],
            "partial checkpoints of attempts that are over": list(self.partial),
            "code of earlier submissions that no job uses": list(self.code),
        }

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(size_of(path) for paths in self.kinds.values() for path in paths)

    def table(self) -> Table:
        """One row for each kind: what it is, how many, and how large."""
        rows = ((kind, len(paths), bytes_text(sum(map(size_of, paths)))) for kind, paths in self.kinds.items() if paths)
        return Table(("to be removed", "count", "size"), tuple(rows))


def look(run: RunDir, keep: Keep | None) -> Spare:
    """Return what can be removed. `keep` holds for all trials that are done; None: each has its own setting.

    Raises `ConfigError` where the queue does not tell what runs.
    """
    state = run_state(run)
    if state.warning:
        raise ConfigError(f"nothing was removed, because the queue does not tell what runs: {state.warning}")
    ledger = Ledger(run)
    tasks = {row["id"]: row["task"] for row in read_jsonl(run.manifest)}
    needed = _needed(run, state, ledger)
    parts: dict[str, Surplus] = {}
    partial: list[Path] = []
    notes = []
    for trial in state.trials:
        directory = run.trial(trial.id).path
        try:
            _check_inside(directory / "checkpoints", run)
            if trial.state is State.DONE and tasks[trial.id] in DEFAULTS and (directory / "checkpoints").is_dir():
                parts[trial.id] = _of_trial(directory, tasks[trial.id], keep, needed.get(trial.id, []))
            partial += _partial(trial, directory)
        except (NotWhole, ConfigError, OSError, ValueError) as error:
            notes.append(f"trial {trial.id} is left alone: {error}")
    active = sum(trial.state.active for trial in state.trials)
    if active:
        notes.append(f"{active} trial{'' if active == 1 else 's'} in the queue: not touched")
    return Spare(parts, tuple(partial), tuple(_code(run, ledger)), tuple(notes))


def clean(run: RunDir, shown: Spare, keep: Keep | None) -> None:
    """Remove what was shown, except what has changed since. No submission can happen at the same time."""
    with locked(run.path.parent):
        now = look(run, keep)
        for trial, part in now.of_trials.items():
            if part == shown.of_trials.get(trial):
                remove(part, write_atomically)
        for path in (*now.partial, *now.code):
            if path in (*shown.partial, *shown.code):
                discard(path)


def _check_inside(checkpoints: Path, run: RunDir) -> None:
    """Raises `NotWhole` for checkpoints that lie outside of the run, behind a link."""
    place = checkpoints.resolve()
    if not place.is_relative_to(run.path.resolve()):
        raise NotWhole(f"its checkpoints are in {place}, outside of the run")


def _of_trial(directory: Path, task: str, keep: Keep | None, needed: Iterable[tuple[str, Demand]]) -> Surplus:
    trainer = _trainer_settings(directory / "config.yaml")
    setting = keep or trainer.get("keep")
    for other, demand in needed:
        if not demand.is_met(task, setting, trainer.get("max_steps")):
            raise NotWhole(f"trial {other}, which is not done, needs {demand} of it")
    return surplus(directory, task, setting)


def _trainer_settings(file: Path) -> dict[str, Any]:
    try:
        trainer: dict[str, Any] = read_yaml(file).data["config"]["trainer"]
    except (KeyError, TypeError):
        raise ConfigError(f"{file} does not hold the settings of a training") from None
    return trainer


def _partial(trial: TrialState, directory: Path) -> Iterator[Path]:
    """Yield the remains of interrupted saves, except where an attempt may still be writing."""
    if trial.state.active or trial.state is State.UNKNOWN:
        return
    for pattern in UNFINISHED:
        yield from (path for path in sorted((directory / "checkpoints").glob(pattern)) if path.is_dir())


def _needed(run: RunDir, state: RunState, ledger: Ledger) -> dict[str, list[tuple[str, Demand]]]:
    """For each trial the demands of trials that are not done, with the ids of these.

    Raises `ConfigError` where a list of trials was removed that alone tells what one of them needs.
    """
    unknown = {trial.id for trial in state.trials if trial.state is not State.DONE}
    waiting = frozenset(unknown)
    needed: dict[str, list[tuple[str, Demand]]] = {}
    removed = []
    for path in {run.job(job.stage, job.directory) / "trials.jsonl" for job in ledger.jobs}:
        if not path.exists():
            removed.append(path)
            continue
        for row in read_jsonl(path):
            if row["id"] in waiting:
                unknown.discard(row["id"])
                for demand in demands(validate(TASKS[row["task"]], row["config"])):
                    needed.setdefault(demand.trial, []).append((row["id"], demand))
    if removed and unknown:
        raise ConfigError(
            f"nothing was removed: {min(removed)} is gone, so it is not known what trial {min(unknown)}, which is not "
            "done, needs of others. `recipe submit` writes it again"
        )
    return needed


def _code(run: RunDir, ledger: Ledger) -> Iterator[Path]:
    """Yield code that no queued job runs, no rendered script that may yet be submitted, and not `recipe retry`."""
    queued = {flight.task.job for flight in in_flight(ledger)}
    jobs = (job for job in ledger.jobs if job.id is None or job.rendered or job.id in queued)
    in_use = {run.job(job.stage, job.directory) for job in jobs}
    scripts = "".join(path.read_text(encoding="utf-8") for place in in_use for path in place.glob("*.sh"))
    newest = (read_json(run.provenance) or {}).get("code")
    for path in sorted(run.code.glob("*.zip")):
        if path.name != newest and path.name not in scripts:
            yield path
