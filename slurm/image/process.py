"""Running a program that writes much: into a log, of which a failure shows the end."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from neobert.config import private

LINES = 25  # of a failed program's output that are shown


class BuildError(Exception):
    """An image that could not be built, with what to do about it."""


def run_logged(
    words: Sequence[str], log: Path, failure: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Appends what the program prints to `log`; raises `BuildError` with the end of it if the program fails.

    The program does not outlive an interruption of this process: it is asked to end, and waited for.
    """
    with private.append(log) as stream:
        stream.write(f"$ {shlex.join(words)}\n".encode())
        stream.flush()
        begin = stream.tell()
        environment = os.environ | (env or {})
        process = subprocess.Popen(
            words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if code != 0:
        with log.open("rb") as written:
            written.seek(begin)
            lines = written.read().decode(errors="replace").rstrip().splitlines()
        text = "\n".join(f"  {line}" for line in lines[-LINES:])
        raise BuildError(f"{failure} (exit code {code}):\n{text}\nthe whole log: {log}")
