"""Causes of failures: pure functions of the job script's record, the log, and Slurm's verdict."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm.backends import TaskState
from slurm.logtext import CHECKPOINTED, End, by_code, first_end, is_out_of_memory, lines_of, message, slurms_verdict

KILLED = "likely out of memory, or by an administrator"
PLAIN = "failed"
"""The record's word where the job script knows no more than that."""
BY_SLURM = {
    "TIMEOUT": ("timeout", "time limit reached"), "PREEMPTED": ("preempted", "preempted"),
    "NODE_FAIL": ("failed", "its node failed"),
}  # fmt: skip
"""The kind and the words of what Slurm wrote into a log before it ended the processes."""
VERDICTS = {
    "PREEMPTED": "preempted", "CANCELLED": "cancelled", "OUT_OF_MEMORY": "Slurm found it out of memory",
    "NODE_FAIL": "its node failed", "BOOT_FAIL": "its node did not boot", "DEADLINE": "its deadline came",
    "FAILED": "the job failed",
}  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """The step that a trial reached, and its last checkpoint."""

    step: int = 0
    total: int = 0
    saved: int | None = None
    """The step of its last checkpoint."""
    stopped: bool = False
    """True if it saved that checkpoint because it was asked to stop."""

    def of(self, step: int) -> str:
        return f"{step} of {self.total}" if self.total else str(step)

    def __str__(self) -> str:
        if self.saved is None:
            return "no checkpoint"
        return f"{'saved a' if self.stopped else 'last'} checkpoint at step {self.of(self.saved)}"


@dataclass(frozen=True)
class Cause:
    """`kind` is failed, oom, timeout, preempted or node; `how`, where and the message make up the sentence."""

    kind: str
    how: str
    where: str
    message: str = ""
    certain: bool = True
    """False where only Slurm may know who ended the processes."""

    def __str__(self) -> str:
        return ": ".join(filter(None, [f"{self.how}, {self.where}", self.message]))


def find_cause(record: Mapping[str, Any], log: str, progress: Progress = Progress()) -> Cause:
    """The cause of an attempt's failure, from the record that the job script left (failure.json) and the log."""
    lines = lines_of(log)
    end = first_end(lines) or _own_end(record)
    where, text = _where(record, end), message(lines, end)
    kind, known = record.get("kind", "failed"), record["reason"] if record["reason"] != PLAIN else ""
    if kind == "failed" and is_out_of_memory(lines, end, text):
        kind = "oom"
    verdict = slurms_verdict(lines)
    if kind == "failed" and verdict:
        return Cause(*BY_SLURM[verdict], where, certain=False)
    ended_by_others = end.signal in (signal.SIGKILL, signal.SIGTERM) or "SIG" in known
    how = ", ".join(filter(None, [known, _how(end, kind, progress)]))
    return Cause(kind, how, where, text, certain=kind != "failed" or not ended_by_others)


def _own_end(record: Mapping[str, Any]) -> End:
    """The end of the only process, or of all of them together."""
    return by_code(int(record["exit_code"]), str(record["node"]))


def _how(end: End, kind: str, progress: Progress) -> str:
    if not end.signal:
        return f"exit code {end.code}" if end.code != CHECKPOINTED else ""
    name = signal.Signals(end.signal).name.removeprefix("SIG")
    at = f" at step {progress.of(progress.step)}" if progress.step else ""
    likely = f" ({KILLED})" if end.signal == signal.SIGKILL and kind == "failed" else ""
    return f"killed by signal {end.signal} ({name}){at}{likely}"


def _where(record: Mapping[str, Any], end: End) -> str:
    ranks = f" (rank {', '.join(map(str, end.ranks))})" if len(end.ranks) == 1 else ""
    return f"attempt {record['attempt']} on {end.node or record['node']}{ranks}"


def verdict_text(verdict: TaskState, progress: Progress, retry: str) -> str:
    """Slurm's, or the local queue's, verdict on a task, with what is kept and how to go on; `retry` is the command."""
    if verdict.state == "TIMEOUT":
        limit = f" of {verdict.limit}" if verdict.limit else ""
        return f"time limit{limit} reached; {progress}; {how_to_go_on(progress, retry)}"
    words = VERDICTS.get(verdict.state, verdict.state)
    parts = [f"{words} ({verdict.reason})" if verdict.reason not in ("", words) else words]
    parts += [str(progress)] if progress.saved is not None else []
    parts += [how_to_go_on(progress, retry)] if verdict.state == "PREEMPTED" else []
    return "; ".join(parts)


def how_to_go_on(progress: Progress, retry: str) -> str:
    """The next command for a trial that was stopped."""
    if progress.saved is None:
        return f"`{retry} --set resources.time=...` gives it more time"
    return f"continue with `{retry}`"
