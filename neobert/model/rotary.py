"""Rotary position embeddings (https://arxiv.org/abs/2104.09864) on adjacent pairs, as NeoBERT was trained with.

Llama-style code rotates element i with element i + size/2; with the same weights that is another function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

if TYPE_CHECKING:
    from neobert.model.configuration import NeoBERTConfig


def frequencies(config: NeoBERTConfig, device: torch.device | None = None) -> tuple[Tensor, float]:
    """The angle of each pair at position 1, (head_size / 2,) in float32, and by what cosines and sines are multiplied.

    Where the configuration says how RoPE is stretched to longer sequences (`rope_parameters`), as it says.
    """
    said = config.rope_parameters
    assert said is not None  # Hugging Face fills it in on construction
    if said["rope_type"] != "default":
        angles, scale = ROPE_INIT_FUNCTIONS[said["rope_type"]](config, device)
        return angles.to(torch.float32), scale
    exponents = torch.arange(0, config.head_size, 2, device=device, dtype=torch.float32) / config.head_size
    return said["rope_theta"] ** -exponents, 1.0


def rotation(positions: Tensor, angles: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """What `rotate` multiplies with at positions of shape (...): two float32 tensors (..., head_size).

    Cosines, each twice, and sines, each with minus and with plus.
    """
    turned = positions.to(torch.float32)[..., None] * angles
    cos, sin = turned.cos() * scale, turned.sin() * scale
    return torch.stack((cos, cos), dim=-1).flatten(-2), torch.stack((-sin, sin), dim=-1).flatten(-2)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every pair (2i, 2i+1) of (..., head_size) by its position's angle, in float32."""
    swapped = states.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (states * cos + swapped * sin).to(states.dtype)
