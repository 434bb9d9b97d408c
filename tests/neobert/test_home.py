"""A uid without an account trains: libraries find a name and a home all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from neobert.errors import RunError
from neobert.home import ensure_account
from tests.account import UNKNOWN, without_account
from tests.neobert.conftest import REPOSITORY, TINY


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown_uid(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown_uid)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))


def test_a_uid_without_an_account_gets_a_name_and_a_private_home(unknown: None, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    ensure_account(environ)
    home = tmp_path / f"neobert-{os.getuid()}"
    assert environ == {"LOGNAME": str(os.getuid()), "HOME": str(home)}
    assert home.stat().st_mode & 0o777 == 0o700


def test_what_the_environment_tells_stays(unknown: None) -> None:
    environ = {"LOGNAME": "me", "HOME": "/home/me"}
    ensure_account(environ)
    assert environ == {"LOGNAME": "me", "HOME": "/home/me"}


def test_with_an_account_nothing_changes() -> None:
    environ: dict[str, str] = {}
    ensure_account(environ)
    assert environ == {}


def test_another_users_directory_is_not_taken_for_the_home(
    unknown: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: UNKNOWN)
    (tmp_path / f"neobert-{UNKNOWN}").mkdir()
    if (tmp_path / f"neobert-{UNKNOWN}").stat().st_uid == UNKNOWN:
        pytest.skip("this user has the very uid of the test")
    with pytest.raises(RunError, match=r"belongs to .*: set HOME"):
        ensure_account({})


def test_a_user_without_an_account_trains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=rte", "data.generated=16"]
    command = without_account(*command, "--output-dir", "out", PYTHONPATH=str(REPOSITORY), TMPDIR=str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "score" in json.loads((tmp_path / "out/result.json").read_text())
    assert (tmp_path / f"neobert-{UNKNOWN}").is_dir()
    assert not (tmp_path / "~").exists()
