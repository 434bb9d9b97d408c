"""How the learning rate goes over a training: as a share of the highest one, by the share of the training that is done.

Shares instead of steps, because a training may be measured in steps or in tokens, and the number of processes (and so
the tokens of a step) may change when it resumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Shape = Callable[[float], float]


@dataclass(frozen=True)
class Schedule:
    """`warmup` and `decay` (of wsd) are shares of the training, `final` is the last learning rate's of the highest.

    Up in a straight line, then `cosine` or `linear` down to the end; `wsd`: constant, and in the last part down with
    1 - sqrt (https://arxiv.org/abs/2405.18392); `constant`.
    """

    name: str
    warmup: float
    decay: float = 0.0
    final: float = 0.0

    def __call__(self, done: float) -> float:
        """The share of the highest learning rate for the next step, after `done` (0 to 1) of the training."""
        if done < self.warmup:
            return done / self.warmup
        return self.final + (1 - self.final) * _SHAPES[self.name](self._down(done))

    def _down(self, done: float) -> float:
        """How much of the way down is done, from 0 to 1."""
        start = 1 - self.decay if self.name == "wsd" else self.warmup
        if done <= start or self.name == "constant":
            return 0.0
        return min((done - start) / (1 - start), 1.0)


_SHAPES: dict[str, Shape] = {
    "cosine": lambda down: (1 + math.cos(math.pi * down)) / 2,
    "linear": lambda down: 1 - down,
    "wsd": lambda down: 1 - math.sqrt(down),
    "constant": lambda down: 1.0,
}


def scheduler(optimizer: Optimizer, schedule: Schedule, done: Callable[[], float]) -> Any:
    """Follows `done()`, the share of the training that is done. It counts nothing, so there is nothing to resume.

    The first step of a warm-up is taken with what the second one of a count from 0 would be, and so is not lost.
    """
    return LambdaLR(optimizer, lambda _: schedule(done()))
