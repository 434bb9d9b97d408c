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

    A `warmup` of more than 1 is one that the training ends in.

    Up in a straight line, then `cosine` or `linear` down to the end; `wsd`: constant, and in the last part down with
    1 - sqrt (https://arxiv.org/abs/2405.18392); `constant`.
    """

    name: str
    warmup: float
    decay: float = 0.0
    final: float = 0.0

    def __call__(self, done: float) -> float:
        """The share of the highest learning rate for the step with which `done` (0 to 1) of the training is done."""
        if done < self.warmup:
            return done / self.warmup
        return self.final + (1 - self.final) * _SHAPES[self.name](self._down(min(done, 1.0)))

    def _down(self, done: float) -> float:
        """How much of the way down is done, from 0 to 1."""
        start = max(1 - self.decay, self.warmup) if self.name == "wsd" else self.warmup
        return (done - start) / (1 - start) if done > start else 0.0


_SHAPES: dict[str, Shape] = {
    "cosine": lambda down: (1 + math.cos(math.pi * down)) / 2,
    "linear": lambda down: 1 - down,
    "wsd": lambda down: 1 - math.sqrt(down),
    "constant": lambda down: 1.0,
}


def scheduler(optimizer: Optimizer, schedule: Schedule, done: Callable[[], float]) -> LambdaLR:
    """Sets the learning rate of each step.

    `done()` is asked before the first step and after each one, for the share of the training that will be done with
    the next step. So the first of w steps of warm-up has 1/w of the highest learning rate (counted from 0, as in
    Hugging Face's schedules, it has none, and its data are lost), the last of them has the highest, and the last step
    of all has `final`. Only where that is 0, the single step of a training has the highest.
    """
    return _Follower(optimizer, schedule, done)


class _Follower(LambdaLR):
    """Keeps the share for the next step in a checkpoint, and no learning rates: the highest is that of the settings.

    LambdaLR would take the checkpoint's, and a training that begins from another's would silently have the other's.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, done: Callable[[], float]):
        self._share = 0.0

        def follow(steps: int) -> float:
            self._share = schedule(done())
            if steps == self._share == 0:  # one step, the first and the last at once: with `final`, it would do nothing
                self._share = 1.0
            return self._share

        super().__init__(optimizer, follow)

    def state_dict(self) -> dict[str, Any]:
        return {"share": self._share}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._share = state_dict["share"]
        self._last_lr = [highest * self._share for highest in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
