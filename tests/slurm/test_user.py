"""Users without an account, without a home, and those who look at a colleague's run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.config.paths import at_home
from slurm import user
from slurm.cluster import load_profile
from slurm.provenance import sha256_of
from slurm.rundir import find_run
from slurm.user import cache_directory, user_name
from tests.account import UNKNOWN, as_colleague, without_account

REPOSITORY = Path(__file__).parents[2]
Recipe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system knows neither name nor home of this user, and the environment tells neither."""

    def unknown_uid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown_uid)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_a_uid_without_a_name_stands_for_itself(unknown: None) -> None:
    assert user_name() == str(os.getuid())


def test_a_home_that_nobody_knows_is_told_with_what_to_set(unknown: None) -> None:
    assert at_home("images") == Path("images")
    with pytest.raises(ConfigError, match="~/images: the home directory is unknown here: set HOME"):
        at_home("~/images")
    with pytest.raises(ConfigError, match="set HOME or XDG_CACHE_HOME"):
        cache_directory()
    assert load_profile("local").backend == "local"


def test_an_images_digest_needs_no_home(unknown: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "a.sif"
    image.write_bytes(b"image")
    expected = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
    assert sha256_of(image) == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(image / "not a directory"))
    assert sha256_of(image) == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sha256_of(image) == expected
    assert len(list(user.cache_directory().glob("sha256/*"))) == 1


def test_a_user_without_an_account_runs_a_sweep(recipe: Path, stand_in: Path, work: Path) -> None:
    def call(*words: object, code: int = 0) -> str:
        command = without_account(sys.executable, "-m", "slurm.cli", *words, PYTHONPATH=REPOSITORY, TMPDIR=work.parent)
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "8 trials" in call("plan", "demo")
    call("submit", recipe, "--cluster", stand_in, "--wait")
    assert "4 done" in call("status")
    assert "2/2" in call("results")
    assert "starts at step 0" in call("logs")
    assert "nothing to submit" in call("retry")
    assert "nothing waits or runs" in call("cancel")
    assert json.loads(find_run(work / "runs", None).provenance.read_text())["user"] == str(UNKNOWN)
    stand_in.write_text('{"backend": "local", "python": "~/python"}')
    refused = call("submit", recipe, "--cluster", stand_in, "--new", code=2)
    assert refused.startswith("error: ~/python: the home directory is unknown here")


def test_a_colleagues_run_can_be_looked_at(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "1"})
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    for words, shown in ((["status"], "2 done, 2 failed"), (["results"], "1/2"), (["logs"], "it does not work")):
        command = as_colleague(sys.executable, "-m", "slurm.cli", *words)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


def test_a_temporary_directory_that_is_missing_does_no_harm(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"TMPDIR": str(work / "missing")})
    assert done.returncode == 0, done.stderr
