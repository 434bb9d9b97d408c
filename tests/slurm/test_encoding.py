"""Terminals and locales that are not UTF-8: every command prints, scripts and paths keep their bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm.cli import cli

ASCII = {"PYTHONIOENCODING": "ascii"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = {"ascii": ASCII, "latin-1": LATIN, "C locale": C_LOCALE}

Call = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def call(work: Path) -> Call:
    """Calls `recipe` and returns its bytes."""

    def call(*words: object, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "slurm.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, cwd=work, env={**os.environ, **env}, timeout=60)

    return call


@pytest.fixture
def done(call: Call, recipe: Path, stand_in: Path) -> None:
    """A run in a directory with an umlaut; one trial has failed with a message in Greek."""
    python = json.loads(stand_in.read_text())["python"]
    Path(python).write_text(Path(python).read_text().replace("exec ", 'echo "λάθος: ±1"; exec '))
    failing = {"STAND_IN_FAIL": "1"}
    ended = call("submit", recipe, "--cluster", stand_in, "--runs", "rüns", "--wait", env={**C_LOCALE, **failing})
    assert ended.returncode == 1, ended.stderr


@pytest.mark.parametrize("terminal", TERMINALS)
def test_every_command_prints_on_a_terminal_that_lacks_characters(
    done: None, call: Call, recipe: Path, stand_in: Path, terminal: str
) -> None:
    runs = ("--runs", "rüns")
    commands = [
        ("status", *runs), ("results", *runs), ("status", "ü", *runs),
        ("plan", recipe, "--cluster", stand_in, *runs), ("submit", recipe, "--cluster", stand_in, *runs),
        ("logs", *runs), ("results", "--compare", "sweep", "sweep", *runs), ("cancel", *runs), ("plan", "ü.yaml"),
    ]  # fmt: skip
    for words in commands if terminal == "ascii" else commands[:3]:
        ended = call(*words, env=TERMINALS[terminal])
        assert b"Traceback" not in ended.stderr, (words, ended.stderr)
        assert ended.returncode == (2 if "ü" in str(words[1]) else 0), (words, ended.stderr)
        if words[0] != "logs":  # a log is shown as it is
            (ended.stdout + ended.stderr).decode("latin-1" if terminal == "latin-1" else "ascii")


@pytest.mark.parametrize("terminal", ["ascii", "C locale"])
def test_what_programs_read_is_utf_8_whatever_the_terminal(
    done: None, call: Call, recipe: Path, stand_in: Path, work: Path, terminal: str
) -> None:
    script = call("render", recipe, "--cluster", stand_in, "--runs", "rüns", "--new", env=TERMINALS[terminal])
    assert f"run={work}/rüns/sweep/" in script.stdout.decode().replace("'", "")
    table = call("results", "--runs", "rüns", "--format", "markdown", env=TERMINALS[terminal])
    assert "±" in table.stdout.decode() or "—" in table.stdout.decode()


@pytest.mark.parametrize(
    ("terminal", "shown"), [(ASCII, rb"'\xfc...'"), (LATIN, b"'\xfc...'"), (C_LOCALE, rb"'\xfc...'")]
)
def test_a_mistake_is_told_in_what_the_terminal_can_show(call: Call, terminal: dict[str, str], shown: bytes) -> None:
    assert shown in call("status", "ü…", env=terminal).stderr


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_help_is_plain(command: list[str]) -> None:
    assert CliRunner().invoke(cli, [*command, "--help"]).output.isascii()


def test_a_path_whose_bytes_are_not_utf_8_is_shown_and_refused_for_what_it_is(
    call: Call, recipe: Path, stand_in: Path
) -> None:
    ended = call("submit", recipe, "--cluster", stand_in, "--runs", os.fsdecode(b"r\xfcns"), env={})
    assert ended.returncode == 2
    assert b"holds bytes that are no UTF-8 text; rename it" in ended.stderr
    assert len(ended.stderr) < 500
    assert b"r\xfcns" in call("status", "--runs", os.fsdecode(b"r\xfcns"), env={}).stderr
