"""Stopping when asked: SIGUSR2 or SIGTERM to any rank, and all ranks stop at the same step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Preemption:
    """Remembers that a signal came. The handler does nothing else: it may interrupt anything, a save as well."""

    def __init__(self) -> None:
        self.requested = False
        self._group: Any = None

    def listen(self) -> None:
        """Takes over the two signals. They may come repeatedly, and while libraries are still being imported."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. Every rank must call this at the same step, and all hear the same."""
        import torch
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
            return self.requested
        if self._group is None:
            # gloo: one integer over the CPU, so that a GPU need not be waited for at each step.
            self._group = distributed.new_group(backend="gloo")
        flag = torch.tensor(int(self.requested))
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group)
        self.requested = bool(flag.item())
        return self.requested
