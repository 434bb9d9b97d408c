"""Attention on CPUs as plain products of matrices, for what PyTorch's kernels there do not know or do slowly.

They know no dropout, and take long for 16-bit floats. Done operation by operation, most of the time of short texts
would go into autograd's records of each; here a whole layer's attention is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neobert.model.dropout import kept

Runs = Sequence[tuple[int, int]]
"""(length, how many in a row) of sequences that lie end to end."""


def batches(tokens: Tensor, runs: Runs) -> list[Tensor]:
    """(count, heads, length, head size) of each run, of (tokens, heads, head size): views, nothing is copied."""
    # Split at once, and not cut out one by one: each cut's gradient would be as long as the whole.
    parts = tokens.split([length * count for length, count in runs])
    return [
        part.unflatten(0, (count, length)).transpose(1, 2) for part, (length, count) in zip(parts, runs, strict=True)
    ]


def plain_attention(query: Tensor, key: Tensor, value: Tensor, queries: Runs, runs: Runs, drop: float) -> Tensor:
    """Of (tokens, heads, head size) tensors of one type; `queries` are the runs of the first, `runs` of the others."""
    with torch.autocast(query.device.type, enabled=False):
        mixed: Tensor = _Plain.apply(query, key, value, queries, runs, drop)
        return mixed


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, queries: Runs, runs: Runs, drop: float) -> Tensor:
        heads, scale = query.shape[1], query.shape[-1] ** -0.5
        shapes = [(count * heads, asking, length) for (asking, count), (length, _) in zip(queries, runs, strict=True)]
        masks = _masks(shapes, query, drop)
        probabilities = []
        mixed = torch.empty_like(query)
        for out, q, k, v, mask in zip(batches(mixed, queries), *_flat((query, queries), (key, runs), (value, runs)),
                                      masks, strict=True):  # fmt: skip
            found = torch.bmm(q, k.transpose(1, 2)).mul_(scale).softmax(dim=-1)  # adds up in float32 by itself
            probabilities.append(found)
            out.copy_(torch.bmm(_dropped(found, mask), v).view(out.shape))
        ctx.save_for_backward(query, key, value, *probabilities, *(mask for mask in masks if mask is not None))
        ctx.runs = queries, runs, scale
        return mixed

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        queries, runs, scale = ctx.runs
        query, key, value, *saved = ctx.saved_tensors
        probabilities, masks = saved[: len(runs)], saved[len(runs) :] or [None] * len(runs)
        of_query, of_key, of_value = (torch.empty_like(x) for x in (query, key, value))
        flat = _flat((query, queries), (key, runs), (value, runs), (gradient, queries))
        outs = (batches(of_query, queries), batches(of_key, runs), batches(of_value, runs))
        for q, k, v, g, p, mask, *out in zip(*flat, probabilities, masks, *outs, strict=True):
            out[2].copy_(torch.bmm(_dropped(p, mask).transpose(1, 2), g).view(out[2].shape))
            of_probabilities = torch.bmm(g, v.transpose(1, 2))
            if mask is not None:
                of_probabilities.mul_(mask)
            of_scores = torch._softmax_backward_data(of_probabilities, p, -1, p.dtype).mul_(scale)
            out[0].copy_(torch.bmm(of_scores, k).view(out[0].shape))
            out[1].copy_(torch.bmm(of_scores.transpose(1, 2), q).view(out[1].shape))
        return of_query, of_key, of_value, None, None, None


def _flat(*pairs: tuple[Tensor, Runs]) -> Iterator[list[Tensor]]:
    """(count x heads, length, head size) of each run, of each tensor."""
    for tokens, runs in pairs:
        yield [part.reshape(-1, *part.shape[2:]) for part in batches(tokens, runs)]


def _masks(shapes: Sequence[tuple[int, int, int]], like: Tensor, drop: float) -> list[Tensor | None]:
    """What probabilities are multiplied with, of each run; None where nothing is dropped."""
    if not drop:
        return [None] * len(shapes)
    sizes = [count * asking * length for count, asking, length in shapes]
    drawn = kept(sum(sizes), drop, like.dtype)
    return [part.view(shape) for part, shape in zip(drawn.split(sizes), shapes, strict=True)]


def _dropped(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    return probabilities if mask is None else probabilities * mask
