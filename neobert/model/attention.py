"""The one place where attention is computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bidirectional attention of (batch, heads, length, head size) tensors; returns the same shape.

    `mask` comes from `key_mask`; None attends to every position.
    """
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def key_mask(attention_mask: Tensor) -> Tensor:
    """Which keys may be attended to, as booleans (batch, 1, 1, length), from 1 for tokens and 0 for padding.

    A softmax over no key at all is NaN, and it would spread through the batch by way of the gradient. So an example
    without any token attends to its padding; nothing reads what comes out.
    """
    tokens = attention_mask.to(torch.bool)
    return (tokens | ~tokens.any(dim=-1, keepdim=True))[:, None, None, :]
