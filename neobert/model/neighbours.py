"""Whether what a model says of a text depends on which others share its batch.

It should not, but padding gets into some: FNet mixes all positions, convolutions reach over the end of a text,
attention by landmarks or blocks divides the padded length, and some count positions from the left, whichever side is
padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]

ROUNDING = 1e-5
"""Differences up to this, relative to the largest logit, are those of sums in another order: twelve blocks of various
encoders gave up to 1.3e-6 in float32."""


@dataclass(frozen=True)
class Neighbours:
    """Two texts, one far shorter than the other, as batches: each by itself, and both."""

    alone: tuple[Batch, Batch]
    together: Batch


def matter(model: Any, texts: Neighbours) -> bool:
    """Whether the classifier says something else of two texts that share a batch than of each; in evaluation mode."""
    device = next(model.parameters()).device
    training = model.training
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.eval()
        alone = torch.cat([_logits(model, batch, device) for batch in texts.alone])
        together = _logits(model, texts.together, device)
        model.train(training)
    return bool((together - alone).abs().max() > ROUNDING * alone.abs().max())


def _logits(model: Any, batch: Batch, device: torch.device) -> Tensor:
    found: Tensor = model(**{name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}).logits
    return found
