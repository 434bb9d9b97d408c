"""Locks, with the kernel's flock and where the file system has none: the commands then really meet ENOSYS."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slurm import locks
from slurm.locks import Holder, HolderFile, is_locked, locked, try_lock
from tests.no_flock import COMMAND as NO_FLOCK

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["flock", "no flock"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock, on a file system with flock and on one without."""
    if request.param == "no flock":
        without_flock(monkeypatch)
    return tmp_path / "lock"


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_flock(monkeypatch)
    return tmp_path / "lock"


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_holds_it_at_a_time(path: Path) -> None:
    assert not is_locked(path)
    for _ in range(3):
        lock = try_lock(path)
        assert lock is not None
        assert is_locked(path)
        assert try_lock(path) is None
        lock.release()
        assert not is_locked(path)


def test_who_waits_hears_once_who_holds_it(path: Path) -> None:
    heard: list[str] = []
    lock = try_lock(path)
    assert lock is not None

    def waiting(holder: str) -> None:
        heard.append(holder)
        lock.release()

    with locked(path, waiting) as waited:
        assert waited
    assert len(heard) == 1
    with locked(path, waiting) as waited:
        assert not waited


def test_only_the_newest_file_stays(plain: Path) -> None:
    for _ in range(3):
        lock = try_lock(plain)
        assert isinstance(lock, HolderFile)
        lock.release()
    assert sorted(entry.name for entry in plain.parent.iterdir()) == ["lock", "lock.holder-3"]


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),  # more than the kernel ever gives
        ({"started": "1"}, False),  # another process had the number
        ({"boot": "earlier"}, False),
        ({"pids": "pid:[1]"}, True),  # of a container: its numbers mean nothing here
        ({"machine": "other", "boot": "other"}, True),
    ],
)
def test_a_holder_is_gone_only_where_that_is_sure(plain: Path, change: dict[str, object], held: bool) -> None:
    plain.touch()
    file = plain.with_name("lock.holder-7")
    file.write_text(str(replace(Holder.this_process(), **change)))
    assert is_locked(plain) == held
    lock = try_lock(plain)
    assert (lock is None) == held
    assert file.exists() == held


def test_a_holder_elsewhere_is_named_with_the_file_to_remove(plain: Path) -> None:
    plain.with_name("lock.holder-1").write_text(str(replace(Holder.this_process(), machine="m", host="login2", pid=41)))
    heard: list[str] = []

    def remove(holder: str) -> None:
        heard.append(holder)
        plain.with_name("lock.holder-1").unlink()

    with locked(plain, remove):
        pass
    assert heard == [f"process 41 on login2 (if that has ended, remove {plain}.holder-1)"]


@pytest.mark.parametrize("text", ["\0" * 40, "12 34"])
def test_a_damaged_holder_is_named_with_the_file_to_remove(plain: Path, text: str) -> None:
    damaged = plain.with_name("lock.holder-1")
    damaged.write_text(text)
    heard: list[str] = []

    def remove(holder: str) -> None:
        heard.append(holder)
        damaged.unlink()

    with locked(plain, remove):
        pass
    assert heard == [f"another process (if there is none, remove {damaged}, which is damaged)"]


def test_a_copy_that_an_editor_left_beside_the_holders_is_none_of_them(plain: Path) -> None:
    plain.with_name("lock.holder-1~").touch()
    lock = try_lock(plain)
    assert lock is not None


def test_who_saw_an_old_state_of_the_directory_backs_off(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two see that number 1 is free again; one takes 2, and its number 1 is gone before the other takes that."""
    current = plain.with_name("lock.holder-2")
    current.write_text(str(Holder.this_process()))
    real = locks._newest
    answers = iter([None])
    monkeypatch.setattr(locks, "_newest", lambda path: next(answers, real(path)))
    assert try_lock(plain) is None
    assert [entry.name for entry in plain.parent.glob("*.holder-*")] == ["lock.holder-2"]


COUNT = """
import sys
from pathlib import Path
from slurm.locks import locked
counter = Path(sys.argv[1])
for _ in range(20):
    with locked(counter.with_name("lock"), print, patience=60):
        value = int(counter.read_text())
        counter.write_text(str(value + 1))
"""


def test_processes_without_flock_never_hold_it_together(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [*NO_FLOCK, sys.executable, "-c", COUNT, str(counter)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert counter.read_text() == "80"


def test_a_killed_process_without_flock_leaves_it_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = "import sys, time; from pathlib import Path; from slurm.locks import try_lock; "
    hold += "lock = try_lock(Path(sys.argv[1])); print(type(lock).__name__, flush=True); time.sleep(60)"
    command = [*NO_FLOCK, sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "HolderFile\n", "the kernel refused flock"
        without_flock(monkeypatch)
        assert try_lock(tmp_path / "lock") is None
        process.kill()
    assert try_lock(tmp_path / "lock") is not None


def test_a_sweep_runs_where_the_file_system_has_no_flock(recipe: Path, stand_in: Path, work: Path) -> None:
    def call(*words: object, code: int = 0, **environ: str) -> str:
        command = [*NO_FLOCK, sys.executable, "-m", "slurm.cli", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environ}
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    call("submit", recipe, "--cluster", stand_in, "--wait", code=1, STAND_IN_FAIL="1")
    assert "2 done, 2 failed" in call("status")
    assert "to run: failed" in call("plan", recipe, "--cluster", stand_in)
    call("retry", STAND_IN_STEPS="900")
    assert "running" in call("status")
    assert "cancelled 2 array tasks" in call("cancel")
    call("retry")
    call("status", "--watch")
    assert "2/2" in call("results")
