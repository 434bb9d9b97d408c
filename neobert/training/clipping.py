"""Gradients that are clipped where the optimizer reads them, on CPUs.

There a pass over all gradients takes as long as a third of the optimizer's step, and PyTorch's fused AdamW can divide
each by a number as it goes: what is otherwise the scale of an fp16 loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW


def can_clip_in_step(optimizer: Any) -> bool:
    """Whether it is AdamW that takes one step for all its weights, and these are on CPUs."""
    if type(optimizer) is not AdamW:
        return False
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    fused = all(group["fused"] for group in optimizer.param_groups)
    return fused and all(weight.device.type == "cpu" for weight in weights)


def clip_in_step(optimizer: AdamW, weights: Iterable[Tensor], limit: float) -> Tensor:
    """The norm of all gradients, which the next step of `optimizer` makes `limit` at most; until then, they stay."""
    norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    factor = ((norm.float() + 1e-6) / limit).clamp(min=1.0)  # by one over this, `clip_grad_norm_` multiplies
    optimizer.grad_scale = None if factor == 1 else factor  # where GradScaler puts its own
    return norm
