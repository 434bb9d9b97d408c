"""What is raised for a checkpoint that cannot be used."""

from __future__ import annotations

from neobert.errors import RunError


class UnusableCheckpoint(RunError):
    """There is no checkpoint, or it is not whole, or it is none of a model that can be built here."""


def reason_of(error: Exception) -> str:
    """An error of another library in one line: its first, or the last where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1].removeprefix("ValueError: ") if lines[0].endswith(":") else lines[0]
