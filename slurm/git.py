"""Questions to git, answered without running a command of the repository's own.

A repository that came from somewhere else brings its configuration along: hooks, filters, programs that make diffs or
watch its files. All of that is switched off here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_OWN_SCOPES = ("system", "global")
"""Where settings are the user's or the machine's own."""


def ask(directory: Path, *words: str) -> str | None:
    """Return what git prints; None where there is no git, no repository, or an error."""
    return _run(directory, *_without_filters(directory), *words)


def commit(directory: Path) -> str | None:
    answer = ask(directory, "rev-parse", "HEAD")
    return answer.strip() if answer is not None else None


def diff(directory: Path) -> str:
    """Return the uncommitted changes of files that git knows."""
    return ask(directory, "diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "HEAD") or ""


def status(directory: Path, *paths: str) -> str | None:
    """Return a line for each of the paths that differs from the commit."""
    return ask(directory, "status", "--porcelain", "--ignore-submodules=dirty", "--", *paths)


def _without_filters(directory: Path) -> list[str]:
    """Options that empty the filters that the repository itself configures: git would run them to compare files."""
    listed = _run(directory, "config", "--show-scope", "--name-only", "--get-regexp", r"^filter\.") or ""
    names = [line.split("\t", 1) for line in listed.splitlines() if "\t" in line]
    foreign = {name.rpartition(".")[0] for scope, name in names if scope not in _OWN_SCOPES}
    empty = ("clean=", "smudge=", "process=", "required=false")
    return [word for name in sorted(foreign) for value in empty for word in ("-c", f"{name}.{value}")]


def _run(directory: Path, *words: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(directory), *_QUIET, *words]
    try:
        answer = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode(errors="replace") if answer.returncode == 0 else None
