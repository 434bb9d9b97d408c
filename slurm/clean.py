"""What a run can do without, and its removal: what `recipe clean` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from neobert.config import TASKS, ConfigError, read_yaml, validate
from neobert.config.keep import DEFAULTS, UNFINISHED, Keep, NotWhole, Surplus, discard, remove, size_of, surplus
from slurm.disk.report import bytes_text
from slurm.kept import Demand, demands
from slurm.results import Table
from slurm.rundir import RunDir, locked, read_json, read_jsonl, write_atomically
from slurm.state import RunState, State, TrialState, run_state
from slurm.submissions import Ledger, Submitted, in_flight


@dataclass(frozen=True)
class Spare:
    """What a run can do without, and notes on what stays although it looks alike."""

    of_trials: Mapping[str, Surplus]
    partial: tuple[Path, ...]
    code: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, list[Path]]:
        """What it is, and where."""
        found = self.of_trials.values()
        return {
            "other checkpoints of trials that are done": [path for each in found for path in each.checkpoints],
            "optimizer and state of their models": [path for each in found for path in each.states],
            "partial checkpoints of attempts that are over": list(self.partial),
            "code of earlier submissions that no job uses": list(self.code),
        }

    @property
    def size(self) -> int:
        return sum(size_of(path) for paths in self.kinds.values() for path in paths)

    def table(self) -> Table:
        rows = [(kind, len(paths), bytes_text(sum(map(size_of, paths)))) for kind, paths in self.kinds.items() if paths]
        return Table(("to be removed", "count", "size"), tuple(rows))


def look(run: RunDir, keep: Keep | None) -> Spare:
    """What can go. `keep` is for all trials that are done; None: for each as its own settings say.

    Raises `ConfigError` where the queue does not tell what runs.
    """
    state = run_state(run)
    if state.warning:
        raise ConfigError(f"nothing is removed, because it is not known what runs: {state.warning}")
    ledger = Ledger(run)
    tasks = {row["id"]: row["task"] for row in read_jsonl(run.manifest)}
    needed = _needed(run, state, ledger.jobs)
    found: dict[str, Surplus] = {}
    partial: list[Path] = []
    notes = []
    for trial in state.trials:
        directory = run.trial(trial.id).path
        try:
            _check_inside(directory / "checkpoints", run)
            if trial.state is State.DONE and tasks[trial.id] in DEFAULTS:
                found[trial.id] = _of_trial(directory, tasks[trial.id], keep, needed.get(trial.id, []))
            partial += _partial(trial, directory)
        except (NotWhole, ConfigError, OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"trial {trial.id} stays as it is: {error}")
    active = sum(trial.state.active for trial in state.trials)
    if active:
        notes.append(f"{active} trial{'' if active == 1 else 's'} in the queue: not touched")
    return Spare(found, tuple(partial), tuple(_code(run, ledger)), tuple(notes))


def clean(run: RunDir, shown: Spare, keep: Keep | None) -> None:
    """Remove what was shown, unless something has come to need it since; no submission comes in between."""
    with locked(run.path.parent):
        now = look(run, keep)
        for trial, found in now.of_trials.items():
            if found == shown.of_trials.get(trial):
                remove(found, write_atomically)
        for path in (*now.partial, *now.code):
            if path in (*shown.partial, *shown.code):
                discard(path)


def _check_inside(checkpoints: Path, run: RunDir) -> None:
    """Raises `NotWhole` for checkpoints that a link leads to: nothing outside of a run is touched."""
    place = checkpoints.resolve()
    if not place.is_relative_to(run.path.resolve()):
        raise NotWhole(f"its checkpoints lie in {place}, outside of the run")


def _of_trial(directory: Path, task: str, keep: Keep | None, needed: Iterable[tuple[str, Demand]]) -> Surplus:
    file = directory / "config.yaml"
    if not (directory / "checkpoints").is_dir():
        return Surplus()
    trainer = read_yaml(file).data["config"]["trainer"]
    kept = keep or trainer.get("keep")
    for other, demand in needed:
        if not demand.is_met(task, kept, trainer.get("max_steps")):
            raise NotWhole(f"trial {other}, which is not done, needs {demand} of it")
    return surplus(directory, task, kept)


def _partial(trial: TrialState, directory: Path) -> Iterator[Path]:
    """What interrupted saves have left, where no attempt may still be writing."""
    if trial.state.active or trial.state is State.UNKNOWN:
        return
    for pattern in UNFINISHED:
        yield from (path for path in sorted((directory / "checkpoints").glob(pattern)) if path.is_dir())


def _needed(run: RunDir, state: RunState, submissions: Iterable[Submitted]) -> dict[str, list[tuple[str, Demand]]]:
    """For each trial, what those that are not done need of it, with the ids of these."""
    done = {trial.id for trial in state.trials if trial.state is State.DONE}
    found: dict[str, list[tuple[str, Demand]]] = {}
    for directory in {run.job(job.stage, job.directory) for job in submissions}:
        for row in read_jsonl(directory / "trials.jsonl"):
            if row["id"] not in done:
                for demand in demands(validate(TASKS[row["task"]], row["config"])):
                    found.setdefault(demand.trial, []).append((row["id"], demand))
    return found


def _code(run: RunDir, ledger: Ledger) -> Iterator[Path]:
    """Code that neither a job in the queue runs, nor one that was rendered and may be submitted, nor `recipe retry`."""
    queued = {flight.task.job for flight in in_flight(ledger)}
    jobs = (job for job in ledger.jobs if job.id is None or job.rendered or job.id in queued)
    in_use = {run.job(job.stage, job.directory) for job in jobs}
    scripts = "".join(path.read_text(encoding="utf-8") for place in in_use for path in place.glob("*.sh"))
    newest = (read_json(run.provenance) or {}).get("code")
    for path in sorted(run.code.glob("*.zip")):
        if path.name != newest and path.name not in scripts:
            yield path
