"""An attempt that was replaced stops, and touches nothing any more; a short disturbance of the files stops nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neobert.errors import RunError
from neobert.training import checkpoints, files, lease
from neobert.training.lease import Claim, Lease
from tests.neobert.conftest import REPOSITORY, TINY, launch, without_caveats
from tests.neobert.training.test_gradients import free_port

Run = Callable[..., int]
# 60 steps, with a checkpoint every 10: long enough for an attempt to be overtaken by another one.
SETTINGS = [*TINY, "task_name=qnli", "data.generated=240", "trainer.num_train_epochs=2",
            "trainer.eval_strategy=steps", "trainer.eval_steps=10"]  # fmt: skip


class Ended(BaseException):
    """Stands for the end of the process, in tests that want to live on."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        assert code == 86
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_TRIES", 0.01)


def held(directory: Path, attempt: int = 2) -> Lease:
    path = directory / "lease"
    path.write_text(f"{attempt}\n")
    return Lease(path, Claim(attempt))


def test_the_lease_holds_until_a_later_attempt_has_claimed_it(
    tmp_path: Path, ends: None, capfd: pytest.CaptureFixture[str]
) -> None:
    ours = held(tmp_path)
    ours.check()
    ours.path.write_text("3\n")
    with pytest.raises(Ended):
        ours.check()
    assert capfd.readouterr().err == (
        "neobert: attempt 2 lost the lease and stops without touching anything: attempt 3 of this trial has started\n"
    )


def test_an_error_when_the_lease_is_lost_is_the_end_of_its_other_processes(tmp_path: Path, ends: None) -> None:
    """Those who saw it first have gone, and whoever waits for them gets an error of the network."""
    path = tmp_path / "lease"
    path.write_text("1\n")
    with pytest.raises(ConnectionResetError), lease.hold(path, Claim(1)):
        raise ConnectionResetError
    with pytest.raises(Ended), lease.hold(path, Claim(1)):
        path.write_text("2\n")
        raise ConnectionResetError


def test_of_two_with_the_same_number_the_one_who_wrote_last_holds_it(tmp_path: Path, ends: None) -> None:
    """As when several single processes are started by mistake, in the place of several ranks."""
    path = tmp_path / "lease"
    ours = lease.claim(path, {}, is_main=True)
    assert ours is not None
    path.write_text("1 node7:99\n")
    with pytest.raises(Ended):
        Lease(path, ours).check()


@pytest.mark.parametrize("disturbance", ["missing", "empty", "unreadable", "outdated"])
def test_a_disturbance_delays_a_write_and_no_more(tmp_path: Path, ends: None, disturbance: str) -> None:
    ours = held(tmp_path)
    if disturbance == "missing":
        ours.path.unlink()
    elif disturbance == "empty":
        ours.path.write_text("")
    elif disturbance == "outdated":
        ours.path.write_text("1\n")  # a file server that is behind the times
    else:
        ours.path.unlink()
        ours.path.mkdir()

    def mend() -> None:
        if ours.path.is_dir():
            ours.path.rmdir()
        ours.path.write_text("2\n")

    timer = threading.Timer(0.3, mend)
    timer.start()
    begin = time.monotonic()
    ours.check()
    assert time.monotonic() - begin > 0.2
    timer.join()


def test_a_lease_that_stays_away_is_lost(
    tmp_path: Path, ends: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 0.1)
    ours = held(tmp_path)
    ours.path.unlink()
    with pytest.raises(Ended):
        ours.check()
    assert capfd.readouterr().err.endswith(f"{ours.path} could not be read (No such file or directory)\n")
    ours.path.write_text("1\n")
    with pytest.raises(Ended):
        ours.check()
    assert capfd.readouterr().err.endswith(f"{ours.path} holds the number 1\n")


def test_no_file_is_written_or_deleted_without_the_lease(tmp_path: Path, ends: None) -> None:
    directory = tmp_path / "checkpoints"
    with lease.hold(held(tmp_path).path, Claim(2)):
        files.write_text(tmp_path / "progress.json", "ours")
        files.append_json_line(tmp_path / "metrics.jsonl", {})
        for step in (1, 2):
            staged = checkpoints.staging(directory) / f"checkpoint-{step}"
            staged.mkdir(parents=True)
            checkpoints.complete(staged, directory)
        staged = checkpoints.staging(directory) / "checkpoint-3"
        staged.mkdir(parents=True)
        (tmp_path / "lease").write_text("3\n")
        before = snapshot(tmp_path)
        writes: list[Callable[[], object]] = [
            lambda: files.write_text(tmp_path / "progress.json", "theirs"),
            lambda: files.append_json_line(tmp_path / "metrics.jsonl", {}),
            lambda: checkpoints.complete(staged, directory),
            lambda: checkpoints.keep_newest(directory, 1, 2, None),
        ]
        for write in writes:
            with pytest.raises(Ended):
                write()
        assert snapshot(tmp_path) == before


def test_a_checkpoint_is_not_published_when_the_lease_was_lost_while_it_was_written(
    tmp_path: Path, ends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "checkpoints"
    monkeypatch.setattr(checkpoints, "write_json", lambda *_, **__: (tmp_path / "lease").write_text("3\n"))
    with lease.hold(held(tmp_path).path, Claim(2)):
        staged = checkpoints.staging(directory) / "checkpoint-3"
        staged.mkdir(parents=True)
        with pytest.raises(Ended):
            checkpoints.complete(staged, directory)
    assert not (directory / "checkpoint-3").exists()


def test_a_newer_attempt_clears_what_older_ones_left_and_never_the_other_way_round(tmp_path: Path) -> None:
    for name in ("partial-1", "partial-2", "partial-3", "partial-x"):
        (tmp_path / name).mkdir()
    with lease.hold(held(tmp_path).path, Claim(2)):
        checkpoints.clear_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("partial*")) == ["partial-3", "partial-x"]


def test_claims(tmp_path: Path, ends: None) -> None:
    path = tmp_path / "lease"
    assert lease.claim(path, {}, is_main=False) is None  # the main process claims, and the file tells the others
    first = lease.claim(path, {}, is_main=True)
    assert first == Claim.parse(path.read_text())
    assert first.attempt == 1
    second = lease.claim(path, {}, is_main=True)
    assert second is not None
    assert second.attempt == 2
    with lease.hold(path, None) as found:
        assert found == second
    with pytest.raises(Ended):
        lease.claim(path, {"RECIPE_ATTEMPT": "1"}, is_main=False)  # started late, and replaced by now
    path.write_text("3\n")  # a launcher's attempt is claimed by the launcher ...
    assert lease.claim(path, {"RECIPE_ATTEMPT": "3"}, is_main=False) == Claim(3)
    path.unlink()
    assert lease.claim(path, {"RECIPE_ATTEMPT": "3"}, is_main=True) == Claim(3)
    assert path.read_text() == "3\n"  # ... unless there is none
    assert [entry.name for entry in tmp_path.iterdir()] == ["lease"]


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [("three", {}, "lease: expected the number of an attempt, found 'three'"),
     ("1", {"RECIPE_ATTEMPT": "one"}, "RECIPE_ATTEMPT: expected a number from 1, found 'one'")],
)  # fmt: skip
def test_what_is_no_claim_is_told(tmp_path: Path, text: str, environ: dict[str, str], message: str) -> None:
    (tmp_path / "lease").write_text(text)
    with pytest.raises(RunError, match=message):
        lease.claim(tmp_path / "lease", environ, is_main=True)


def test_a_predecessor_gets_its_time_from_the_start_on() -> None:
    begin = time.monotonic()
    lease.outwait_predecessor({}, begin)
    lease.outwait_predecessor({"RECIPE_LEASE_WAIT": "5"}, begin - 10)
    assert time.monotonic() - begin < 4
    lease.outwait_predecessor({"RECIPE_LEASE_WAIT": "0.5"}, begin)
    assert time.monotonic() - begin >= 0.5


# Two attempts at once, with real processes


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time; not the event files, of which each attempt has its own."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if "tensorboard" not in path.parts
    }


def assert_clean_end(directory: Path, undisturbed: Path) -> None:
    """The same weights and score as without the disturbance, and nothing of another attempt in between."""
    for step in (50, 60):
        expected, found = (
            load_file(path / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
            for path in (undisturbed, directory)
        )
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    results = [json.loads((path / "result.json").read_text()) for path in (directory, undisturbed)]
    assert results[0]["metrics"]["loss"] == results[1]["metrics"]["loss"]
    steps = [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    undisturbed_steps = [json.loads(line)["step"] for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [step for step in steps if step % 10 == 0] == [step for step in undisturbed_steps if step % 10 == 0]
    assert steps == sorted(steps)
    assert not list((directory / "checkpoints").glob("partial*"))
    assert not list(directory.glob(".*"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(directory), cwd=REPOSITORY, env=environ(1), check=True, stdout=subprocess.DEVNULL)
    return directory


def command(directory: Path) -> list[str]:
    keep = ["trainer.save_total_limit=3", "trainer.keep=all"]
    return [sys.executable, "-m", "neobert", "glue", *SETTINGS, *keep, "--output-dir", str(directory)]


def environ(attempt: int, wait: int = 0) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "RECIPE_ATTEMPT": str(attempt), "RECIPE_LEASE_WAIT": str(wait)}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_an_attempt_that_was_cut_off_comes_back_too_late(undisturbed: Path, tmp_path: Path) -> None:
    """It stands still while another one is started and finishes; when it wakes up, it leaves all as it is."""
    (tmp_path / "lease").write_text("1\n")
    old = subprocess.Popen(command(tmp_path), cwd=REPOSITORY, env=environ(1), text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)  # fmt: skip
    wait_for(tmp_path / "checkpoints" / "checkpoint-20", old)
    old.send_signal(signal.SIGSTOP)
    (tmp_path / "lease").write_text("2\n")
    done = subprocess.run(command(tmp_path), cwd=REPOSITORY, env=environ(2), capture_output=True, text=True)
    assert (done.returncode, without_caveats(done.stderr)) == (0, "")
    assert f"attempt 2 holds the lease of {tmp_path}\n" in done.stdout
    before = snapshot(tmp_path)
    old.send_signal(signal.SIGCONT)
    _, errors = old.communicate(timeout=240)
    assert old.returncode == 86
    assert errors.endswith("touching anything: attempt 2 of this trial has started\n")
    assert snapshot(tmp_path) == before
    for aside in tmp_path.rglob(f".*.{old.pid}"):  # it was stopped in the middle of a write
        aside.unlink()
    assert_clean_end(tmp_path, undisturbed)


def test_an_attempt_that_is_overtaken_stops_and_the_other_waits_for_it(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("1\n")
    old = subprocess.Popen(command(tmp_path), cwd=REPOSITORY, env=environ(1), text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)  # fmt: skip
    wait_for(tmp_path / "checkpoints" / "checkpoint-20", old)
    (tmp_path / "lease").write_text("2\n")
    new = subprocess.Popen(command(tmp_path), cwd=REPOSITORY, env=environ(2, wait=4), text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)  # fmt: skip
    _, errors = old.communicate(timeout=240)
    assert old.returncode == 86, errors
    output, errors = new.communicate(timeout=240)
    assert (new.returncode, without_caveats(errors)) == (0, "")
    assert "s for an earlier attempt, which may still be alive, to stop writing" in output
    assert "resumed from step" in output
    assert_clean_end(tmp_path, undisturbed)


def test_the_same_command_once_more_takes_over_from_the_first(tmp_path: Path) -> None:
    """Without a launcher, and with two processes, of which the second hears of the claim from the file."""
    endless = [*command(tmp_path)[3:], "trainer.num_train_epochs=1000", "trainer.logging_steps=1000"]
    first = launch(endless, 2, free_port())
    wait_for(tmp_path / "checkpoints" / "checkpoint-10", first[0])
    assert (tmp_path / "lease").read_text().startswith("1 ")
    second = launch(endless, 2, free_port())
    codes = [process.wait(240) for process in first]
    assert codes[0] == 86, first[0].stdout.read()
    assert codes[1] in (1, 86), first[1].stdout.read()  # it may see first that the main process is gone
    assert (tmp_path / "lease").read_text().startswith("2 ")
    second[1].send_signal(signal.SIGTERM)
    assert [process.wait(240) for process in second] == [85, 85], second[0].stdout.read()
    assert not list((tmp_path / "checkpoints").glob("partial*"))
