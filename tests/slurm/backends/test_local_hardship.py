"""The local queue when something is wrong: killed scripts, files that others have changed, traps, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from slurm.backends import slots
from slurm.rundir import RunDir
from slurm.state import State, run_state
from tests.account import without_account
from tests.skips import need
from tests.slurm.backends.test_local import Recipe, events, submit, wait, wait_queue


@pytest.fixture(autouse=True)
def own_slots(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """This process looks for slots where the commands that it starts do: `work` sets TMPDIR."""
    monkeypatch.setattr(tempfile, "tempdir", None)


ONE = ("--set", "grid={seed: [1]}", "--set", "config.task_name=rte")
SLOW = {"STAND_IN_STEPS": "4000"}


def script_of(run: RunDir) -> int:
    return next(row["pid"] for row in events(run) if row.get("state") == "RUNNING")


def training_of(run: RunDir) -> int:
    """The stand-in's process, which the script waits for."""
    wait(run, lambda state: (state.trials[0].progress.get("step") or 0) > 2)
    children = Path(f"/proc/{script_of(run)}/task/{script_of(run)}/children").read_text().split()
    return int(children[0])


def test_when_the_script_is_killed_its_training_ends_before_another_gets_its_processors(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, *ONE, env=SLOW | {"STAND_IN_SAVE_SECONDS": "1"})
    training = training_of(run)
    os.kill(script_of(run), signal.SIGKILL)
    wait_queue(run)
    assert not Path(f"/proc/{training}").exists()
    state = run_state(run)
    assert state.counts == {State.FAILED: 1}
    assert "checkpoint at step" in (run.trial(state.trials[0].id).log(1)).read_text(), "it was asked to save first"
    submit(run_recipe, recipe, stand_in, *ONE, env={"STAND_IN_STEPS": "4"})
    assert wait(run, lambda state: state.ended).trials[0].result["started_at"] > 2


def test_a_killed_script_can_be_cancelled_while_its_training_still_saves(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, *ONE, env=SLOW | {"STAND_IN_SAVE_SECONDS": "100"})
    training = training_of(run)
    os.kill(script_of(run), signal.SIGKILL)
    assert run_state(run).counts[State.RUNNING] == 1, "its processes run, whatever became of the script"
    assert "cancelled 1 array task" in run_recipe("cancel").stdout
    wait_queue(run)
    assert not Path(f"/proc/{training}").exists(), "killed after signal_seconds"


def test_what_begins_a_session_of_its_own_ends_with_its_trial(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    python = Path(json.loads(stand_in.read_text())["python"])
    python.write_text(python.read_text().replace("exec ", "setsid sleep 1000 & echo $! >leftover\nexec "))
    run = submit(run_recipe, recipe, stand_in, *ONE)
    wait_queue(run)
    assert run_state(run).counts == {State.DONE: 1}
    assert not Path(f"/proc/{Path('leftover').read_text().strip()}").exists()


@pytest.mark.parametrize(("mode", "closed"), [("private", 0o077), ("group", 0o007), (None, 0o000)])
def test_a_run_is_open_to_whom_the_profile_says(
    run_recipe: Recipe, recipe: Path, stand_in: Path, mode: str | None, closed: int
) -> None:
    stand_in.write_text(json.dumps({**json.loads(stand_in.read_text()), "runs_mode": mode}))
    before = os.umask(0o000)
    try:
        run = submit(run_recipe, recipe, stand_in, *ONE)
        wait_queue(run)
    finally:
        os.umask(before)
    made = [path for path in run.path.parent.rglob("*") if not path.is_symlink()]
    assert any(path.name == "result.json" for path in made)
    assert {path.stat().st_mode & 0o077 & closed for path in made} == {0}
    if closed != 0o077:
        assert all(path.stat().st_mode & 0o020 for path in made), "others may work on it"


def change(run: RunDir, what: str) -> Path:
    """Do what a member of the group could do to the files of a job that waits."""
    (code,) = run.code.glob("*.zip")
    (manifest,) = run.path.glob("stages/*/*/trials.jsonl")
    path = {"code": code, "manifest": manifest}[what]
    path.write_bytes(path.read_bytes().replace(b"lr", b"LR") if path == manifest else path.read_bytes() + b"more")
    return path


@pytest.mark.parametrize("what", ["code", "manifest"])
def test_what_was_changed_since_the_submission_is_not_run(
    run_recipe: Recipe, recipe: Path, stand_in: Path, what: str
) -> None:
    machine = slots.take(10_000, 0)
    assert machine is not None
    run = submit(run_recipe, recipe, stand_in, *ONE)
    changed = change(run, what)
    machine.release()
    state = wait(run, lambda state: state.ended)
    assert state.counts == {State.FAILED: 1}
    assert f"{changed} is not what was submitted: somebody has changed or removed it" in state.trials[0].detail
    submit(run_recipe, recipe, stand_in, *ONE)
    assert wait(run, lambda state: state.ended).counts == {State.DONE: 1}


def test_the_script_runs_as_it_was_submitted_whatever_its_file_holds_by_then(
    run_recipe: Recipe, recipe: Path, stand_in: Path, tmp_path: Path
) -> None:
    machine = slots.take(10_000, 0)
    assert machine is not None
    run = submit(run_recipe, recipe, stand_in, *ONE)
    (script,) = run.path.glob("stages/*/*/job.sh")
    script.write_text(f"touch {tmp_path}/was-here\n")
    machine.release()
    assert wait(run, lambda state: state.ended).counts == {State.DONE: 1}
    assert not (tmp_path / "was-here").exists()


def test_another_script_than_the_submitted_one_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("true\n")
    (tmp_path / "job.json").write_text(json.dumps({"script": str(script), "tasks": 1}))
    command = [sys.executable, "-m", "slurm.backends.supervisor", str(tmp_path), "0" * 64]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{script} is not what was submitted: somebody has changed it\n")


@pytest.mark.parametrize("trap", ["link", "file"])
def test_a_trap_in_the_place_of_the_slots_is_told_at_submission(
    run_recipe: Recipe, recipe: Path, stand_in: Path, tmp_path: Path, work: Path, trap: str
) -> None:
    place, mine = slots.slots_directory(), tmp_path / "mine"
    place.rmdir()
    mine.mkdir()
    place.symlink_to(mine) if trap == "link" else place.touch()
    done = run_recipe("submit", recipe, "--cluster", stand_in)
    why = f"is a link (to {mine})" if trap == "link" else "Not a directory"
    assert (done.returncode, done.stderr) == (2, f"error: {place}: {why}; set TMPDIR to another directory\n")
    assert not list(mine.iterdir())
    assert not list(work.glob("runs/*/*/queue"))


@pytest.mark.usefixtures("root")
def test_slots_of_somebody_else_are_told_at_submission(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    os.chown(slots.slots_directory(), 65534, 65534)
    done = run_recipe("submit", recipe, "--cluster", stand_in)
    assert done.returncode == 2
    assert "belongs to nobody; set TMPDIR to another directory" in done.stderr


def test_a_directory_on_the_path_that_cannot_be_searched_stops_no_trial(
    recipe: Path, stand_in: Path, tmp_path: Path
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o000)
    command = [sys.executable, "-m", "slurm.cli", "submit", recipe, "--cluster", stand_in, "--wait", *ONE]
    path = f"{shut}:{os.environ['PATH']}"
    environ = {"PATH": path, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(without_account(*command, **environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture
def small_disk(work: Path, root: None) -> Iterator[Callable[[], None]]:
    """A small file system for the runs; gives a function that fills it."""
    (work / "runs").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", work / "runs"], capture_output=True)
    need(mounted.returncode == 0, "the right to mount", "docker run --privileged ...")

    def fill() -> None:
        with suppress(OSError), (work / "runs/ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    yield fill
    subprocess.run(["umount", "--lazy", work / "runs"], check=True)


def test_a_disk_that_is_full_for_a_while_loses_no_task_of_the_queue(
    run_recipe: Recipe, recipe: Path, stand_in: Path, small_disk: Callable[[], None], work: Path
) -> None:
    run = submit(run_recipe, recipe, stand_in, "--set", "array.parallel=1", env={"STAND_IN_STEPS": "40"})
    wait(run, lambda state: state.counts[State.RUNNING] == 1)
    small_disk()
    time.sleep(4)  # some trials end meanwhile, well or not
    (work / "runs/ballast").unlink()
    wait_queue(run)
    ends = {row["task"]: row["state"] for row in events(run) if "task" in row and row["state"] != "RUNNING"}
    assert sorted(ends) == [0, 1, 2, 3], "what could not be written at once was written later"
    submit(run_recipe, recipe, stand_in)
    assert wait(run, lambda state: state.ended).counts == {State.DONE: 4}
