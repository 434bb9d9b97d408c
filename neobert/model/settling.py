"""What a model makes of itself when it computes its first batch, made before a training begins or goes on.

BigBird changes to full attention when it meets a short batch: it makes new modules, and draws random weights that it
then throws away. Drawn in the middle of a training, these numbers change the dropout of all steps to come, and a
resumed training would draw them at another step than the undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neobert.model.modeling import NeoBERTPreTrainedModel

Example = Mapping[str, Any]


def settle(model: Any, longest: Example, collate: Callable[[Sequence[Example]], Mapping[str, Tensor]]) -> None:
    """Computes the longest text once; neither weights nor the state of random numbers change."""
    if isinstance(model, NeoBERTPreTrainedModel):
        return
    device = next(model.parameters()).device
    batch = collate([{name: value for name, value in longest.items() if name != "labels"}])
    was_training = model.training
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.eval()(**{name: tensor.to(device) for name, tensor in batch.items() if name != "tokens"})
    model.train(was_training)
