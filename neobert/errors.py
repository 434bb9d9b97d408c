"""How a command ends."""

from __future__ import annotations

DONE = 0
FAILED = 1
USERS_MISTAKE = 2
RUN_AGAIN = 85
"""Checkpointed when asked to stop; the same command resumes."""
LOST_LEASE = 86
"""Another attempt of the trial has started, so this one has stopped and touches nothing any more."""
BAD_START = 87
"""The processes did not come together, or a node lacks GPUs: nothing was trained. A file names the node."""


class RunError(Exception):
    """Something went wrong at run time that one clear message explains: no traceback is shown for it."""


class BadStart(RunError):
    """What `BAD_START` is the exit code of."""
