"""Rotary position embeddings (https://arxiv.org/abs/2104.09864) on adjacent pairs, as NeoBERT was trained with.

Llama-style code rotates element i with element i + size/2; with the same weights that is another function.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(positions: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions of shape (..., length): two float32 tensors (..., length, head_size / 2)."""
    exponents = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    angles = positions.to(torch.float32)[..., None] * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every pair (2i, 2i+1) of (..., length, head_size) by its position's angle, in float32."""
    even, odd = states.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(states.dtype)
