"""The steps whose loss was measured: those with a masked token, and with a loss that is a number.

Trainer sums up the losses of steps and divides the sum by the number of steps. A step without a loss adds 0, and would
count as one that was perfect.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class MeasuredSteps:
    """Counts the steps that have no loss, on the device, and the batches that have no masked token."""

    def __init__(self, device: torch.device, micro_batches: int):
        self._micro_batches = micro_batches
        self._lost = torch.zeros((), device=device)
        """Steps of this process that have no loss since the last line; of accumulated micro-batches, parts of steps."""
        self._masked = self._tokens = self._batches = self._bare = 0
        self._can_measure = True
        self._warned = False

    def begin(self, masked: int, tokens: int, batches: int, bare: int) -> None:
        """Takes note of the next step: how many masked tokens, tokens, micro-batches and bare ones it has."""
        self._can_measure = masked > 0
        self._masked += masked
        self._tokens += tokens
        self._batches += batches
        self._bare += bare

    def add(self, loss: Tensor) -> None:
        """Takes note of the loss of one micro-batch of this process."""
        is_lost = ~loss.detach().isfinite() if self._can_measure else torch.ones_like(loss, dtype=torch.bool)
        self._lost += is_lost / self._micro_batches

    def of_measured(self, logs: dict[str, float], steps: int, accelerator: Any) -> dict[str, float]:
        """The `loss` of the last so many steps as the mean over measured ones, or none; call it in all processes."""
        lost = float(accelerator.reduce(self._lost.clone(), reduction="mean"))
        self._lost.zero_()
        if not lost:
            return logs
        if steps - lost < 1e-3:
            return {name: value for name, value in logs.items() if name != "loss"}
        return logs | {"loss": logs["loss"] * steps / (steps - lost)}

    def warn(self, probability: float) -> None:
        """Says once that there are batches without a masked token, and how many."""
        if not self._bare or self._warned:
            return
        self._warned = True
        log.warning(
            "%d of %d batches so far have no masked token, and nothing is learned from them: %.2g %% of all tokens are "
            "masked, with datacollator.mlm_probability: %g", self._bare, self._batches,
            100 * self._masked / self._tokens, probability,
        )  # fmt: skip
