"""Starts trials in no time: `python -m tests.neobert.training.forkserver` imports everything once, and then forks.

Each line of its input holds the words of a command `neobert` and, after a tab, the file for its output. It answers
with the process id, and when that has ended with its exit code (negative: a signal). Nothing but imports has happened
in this process before, so a fork inherits no threads and no locks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.neobert.conftest import REPOSITORY


class Trials:
    """The server's side of the test: `start` a trial, perhaps kill it, `wait` for its end."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def start(self, words: list[object], log: Path) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{shlex.join(map(str, words))}\t{log}\n")
        self._server.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        return self._answer()

    def close(self) -> None:
        self._server.communicate()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def main() -> None:
    import neobert.tasks.pretrain
    import neobert.training.pretrain
    from neobert.cli import run

    assert neobert.training.pretrain.pretrain
    for line in sys.stdin:
        words, _, log = line.rstrip("\n").partition("\t")
        child = os.fork()
        if child == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = run(shlex.split(words))
            sys.stdout.flush()
            os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
