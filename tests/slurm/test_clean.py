"""What `recipe clean` removes of a run, and above all what it does not."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.clean import Spare, clean, look
from slurm.rundir import RunDir, locked
from slurm.session import Session, open_session
from tests.slurm.checkpoints import MODEL, files, write_checkpoint, write_trial

Recipe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def session(recipe: Path, stand_in: Path) -> Session:
    return open_session(str(recipe), cluster=str(stand_in))


@pytest.fixture
def run(session: Session) -> RunDir:
    """A run of four trials by a version that kept all checkpoints: three are done, and one has failed on the way."""
    found, _, _ = session.render(None, 0)
    for index, trial in enumerate(trials(found)):
        write_trial(trial, done=index < 3)
        (trial / "metrics.jsonl").write_text("{}\n")
    return found


def cleaned(run: RunDir, keep: str | None = None) -> Spare:
    spare = look(run, keep)  # type: ignore[arg-type]
    clean(run, spare, keep)  # type: ignore[arg-type]
    return spare


def trials(run: RunDir) -> list[Path]:
    return [run.trial(json.loads(line)["id"]).path for line in run.manifest.read_text().splitlines()]


def left(trial: Path) -> set[str]:
    return {name for name in files(trial) if name.startswith("checkpoints/")}


TRIMMED = {f"checkpoints/checkpoint-20/{name}" for name in (*MODEL, "trainer_state.json", "complete.json")} | {
    "checkpoints/data.json", "checkpoints/finished.json",
}  # fmt: skip


def test_it_shows_what_would_go_and_removes_nothing(run_recipe: Recipe, run: RunDir, work: Path) -> None:
    before = files(run.path)
    done = run_recipe("clean", "--dry-run")
    assert done.returncode == 0, done.stderr
    rows = {line[:45].strip(): line[45:].split() for line in done.stdout.splitlines()}
    assert rows["other checkpoints of trials that are done"][0] == "6"
    assert rows["optimizer and training state of their models"][0] == "9"
    assert f" would be removed from {run.path.relative_to(work)}" in done.stdout
    assert {name: size for name, size in files(run.path).items() if name != ".lock"} == before


def test_of_trials_that_are_done_the_best_model_stays_and_of_others_everything(
    run_recipe: Recipe, run: RunDir, work: Path
) -> None:
    unfinished = trials(run)[3]
    before, failed = files(run.path), files(unfinished)
    done = run_recipe("clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert "removed " in done.stdout
    for trial in trials(run)[:3]:
        assert left(trial) == TRIMMED
    assert files(unfinished) == failed
    gone = before.keys() - files(run.path).keys()
    assert all("/checkpoints/checkpoint-" in name for name in gone), "no result, metric, log or script"
    again = run_recipe("clean", "--yes")
    assert again.stdout == f"nothing to remove in {run.path.relative_to(work)}\n"


def test_without_a_terminal_it_must_be_told_that_it_may(run_recipe: Recipe, run: RunDir) -> None:
    before = files(run.path)
    done = run_recipe("clean")
    assert done.returncode == 2
    assert "error: nothing was removed: there is no terminal to ask at. Pass --yes" in done.stderr
    assert files(run.path) == before


@pytest.mark.parametrize("answer", ["", "n", "y"])
def test_at_a_terminal_it_asks_first(run: RunDir, work: Path, answer: str) -> None:
    before = files(run.path)
    master, terminal = pty.openpty()
    os.write(master, f"{answer}\n".encode())
    command = [sys.executable, "-m", "slurm.cli", "clean"]
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, cwd=work, timeout=60)
    os.close(master)
    os.close(terminal)
    assert "? [y/N]: " in done.stdout
    assert (files(run.path) == before) == (answer != "y")
    assert ("nothing was removed" in done.stdout) == (answer != "y")


def test_each_trial_keeps_what_its_settings_say(run: RunDir) -> None:
    all_of_it, last, _, _ = trials(run)
    for trial, keep in ((all_of_it, "all"), (last, "last")):
        (trial / "config.yaml").write_text(f"task: glue\nconfig: {{trainer: {{keep: {keep}}}}}\n")
    before = files(all_of_it)
    cleaned(run)
    assert files(all_of_it) == before
    assert (last / "checkpoints/checkpoint-60/optimizer.pt").exists()
    assert not (last / "checkpoints/checkpoint-20/optimizer.pt").exists()
    cleaned(run, "best")
    assert left(all_of_it) == left(last) == TRIMMED


def test_a_trial_whose_best_model_is_not_whole_is_told_and_left_alone(run: RunDir) -> None:
    damaged = trials(run)[0]
    (damaged / "checkpoints/checkpoint-20/model.safetensors").write_text("cut short")
    before = files(damaged)
    (note,) = cleaned(run).notes
    assert note.startswith(f"trial {damaged.name} is left alone: ")
    assert note.endswith("checkpoint-20 is missing or incomplete")
    assert files(damaged) == before
    assert left(trials(run)[1]) == TRIMMED


def test_partial_checkpoints_go_where_no_attempt_can_be_writing(run: RunDir) -> None:
    done, _, _, failed = trials(run)
    for trial in (done, failed):
        (trial / "checkpoints/partial-1/checkpoint-80").mkdir(parents=True)
        (trial / "checkpoints/partial-1/checkpoint-80/model.safetensors").write_text("half of it")
    (failed / "checkpoints/universal-40").mkdir()
    cleaned(run)
    assert not list(run.path.rglob("partial-*"))
    assert not (failed / "checkpoints/universal-40").exists()
    assert (failed / "checkpoints/checkpoint-40/optimizer.pt").exists()


def test_trials_that_run_are_not_touched(
    session: Session, run: RunDir, run_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_STEPS", "6000")
    running = trials(run)[3]
    session.submit()
    (running / "checkpoints/partial-2").mkdir()
    before = {name for name in files(running) if "checkpoints" in name}
    assert cleaned(run).notes == ("1 trial in the queue: not touched",)
    assert {name for name in files(running) if "checkpoints" in name} == before
    assert (running / "checkpoints/partial-2").exists()
    run_recipe("cancel")


def test_nothing_goes_while_it_is_not_known_what_runs(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*_: object) -> None:
        raise ConfigError("squeue: no answer")

    monkeypatch.setattr("slurm.state.in_flight", no_answer)
    with pytest.raises(ConfigError, match="the queue does not tell what runs: squeue: no answer"):
        look(run, None)


def test_links_are_not_followed_out_of_the_run(run: RunDir, tmp_path: Path) -> None:
    moved = trials(run)[0]
    elsewhere = (moved / "checkpoints").rename(tmp_path / "elsewhere")
    (moved / "checkpoints").symlink_to(elsewhere)
    before = files(elsewhere)
    (note,) = cleaned(run).notes
    assert note == f"trial {moved.name} is left alone: its checkpoints are in {elsewhere}, outside of the run"
    assert files(elsewhere) == before


def test_what_has_changed_since_it_was_shown_stays(run: RunDir) -> None:
    first, second, _, _ = trials(run)
    shown = look(run, None)
    write_checkpoint(first, 50)
    before = files(first)
    clean(run, shown, None)
    assert files(first) == before
    assert left(second) == TRIMMED


def test_it_waits_for_a_submission_that_is_under_way(run_recipe: Recipe, run: RunDir) -> None:
    before = files(run.path)
    with locked(run.path.parent), pytest.raises(subprocess.TimeoutExpired):
        run_recipe("clean", "--yes", timeout=5)
    assert files(run.path) == before


def test_code_stays_that_a_job_or_a_retry_would_run(session: Session, run: RunDir) -> None:
    """The run's script is rendered and may yet be submitted; the code of the last submission is that of a retry."""
    (script,) = run.path.glob("stages/*/*/job.sh")
    newest = json.loads(run.provenance.read_text())["code"]
    for name in ("0123456789ab.zip", "ba9876543210.zip"):
        (run.code / name).write_bytes(b"code")
    script.write_text(script.read_text().replace(newest, "ba9876543210.zip"))
    cleaned(run)
    assert sorted(path.name for path in run.code.glob("*.zip")) == sorted([newest, "ba9876543210.zip"])


def test_a_trial_keeps_what_another_that_is_not_done_will_begin_from(run: RunDir) -> None:
    first, second, _, unfinished = trials(run)
    (manifest,) = run.path.glob("stages/*/*/trials.jsonl")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    (row,) = (row for row in rows if row["id"] == unfinished.name)
    row["config"]["model"] = {"pretrained_checkpoint_dir": str(first), "pretrained_checkpoint": "latest"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = files(first)
    (note,) = cleaned(run).notes
    assert note.startswith(f"trial {first.name} is left alone: ")
    assert note.endswith(f"trial {unfinished.name}, which is not done, needs the last checkpoint of it")
    assert files(first) == before
    assert left(second) == TRIMMED
