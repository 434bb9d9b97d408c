"""How a command ends."""

from __future__ import annotations

DONE = 0
FAILED = 1
USERS_MISTAKE = 2
RUN_AGAIN = 85
"""Checkpointed when asked to stop; the same command resumes."""


class RunError(Exception):
    """Something went wrong at run time that one clear message explains: no traceback is shown for it."""
