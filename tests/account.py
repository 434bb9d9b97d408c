"""Other users than the one who runs the tests: one whose uid has no account, and a colleague."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

UNKNOWN = 12345
COMMAND = ["unshare", "--user", f"--map-user={UNKNOWN}", f"--map-group={UNKNOWN}"]
"""In a user namespace this process's own uid has another number: files stay accessible, and passwd has no entry."""


def without_account(*command: object, **environ: str) -> list[str]:
    """The command as that user, with nothing in its environment but PATH and `environ`; skips where that cannot be."""
    works = shutil.which("unshare") and subprocess.run([*COMMAND, "true"], capture_output=True).returncode == 0
    if not works:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs `unshare --user --map-user` (util-linux 2.36)")
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | environ
    return [*COMMAND, "env", "-i", *(f"{key}={value}" for key, value in variables.items()), *map(str, command)]


def as_colleague(*command: object) -> list[str]:
    """The command as another user, who may read everything here and write nothing of this user's; needs root."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root and setpriv (util-linux)")
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # the tests' directories are private
    return ["setpriv", f"--reuid={UNKNOWN}", f"--regid={UNKNOWN}", "--clear-groups", *reading, *map(str, command)]
