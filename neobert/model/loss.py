"""Cross-entropy over a large vocabulary, without ever holding all of its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK = 1024
"""Tokens at a time: enough to keep a GPU busy; with 128k entries, their logits take half a gigabyte in float32."""


def linear_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy of `states @ weight.T + bias` with `labels`, and how many of them are the likeliest.

    `states` is (tokens, hidden size), `weight` (vocabulary, hidden size), `labels` (tokens,) without -100. The logits
    of all tokens and their gradient would take tokens x vocabulary x 4 bytes each: 4 GB for 8,192 tokens and 128k
    entries. Here they exist for `chunk` tokens at a time. As the gradient of a sum is known at once, it is computed
    along with the loss, and the logits are never needed again.
    """
    if not torch.is_grad_enabled():  # else the gradients would be computed all the same
        states, weight, bias = states.detach(), weight.detach(), None if bias is None else bias.detach()
    total, correct = _LinearCrossEntropy.apply(states, weight, bias, labels, chunk)
    return total, correct


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        correct = torch.zeros((), dtype=torch.int64, device=states.device)
        of_states = torch.empty_like(states) if wanted[0] else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        for start in range(0, len(labels), chunk):
            rows = slice(start, start + chunk)
            product = linear(states[rows], weight, bias)  # in the precision of autocast, where that is on
            logits, target = product.float(), labels[rows, None]
            logsumexp = logits.logsumexp(dim=-1, keepdim=True)
            total += (logsumexp - logits.gather(-1, target)).sum()
            correct += (logits.argmax(dim=-1, keepdim=True) == target).sum()
            if not any(wanted[:3]):
                continue
            gradient = logits.sub_(logsumexp).exp_()
            gradient.scatter_add_(-1, target, torch.full_like(target, -1, dtype=torch.float32))
            if of_bias is not None:
                of_bias += gradient.sum(dim=0)
            gradient = gradient.to(product.dtype)
            if of_states is not None:
                of_states[rows] = gradient @ weight.to(gradient.dtype)
            if of_weight is not None:
                of_weight += gradient.T @ states[rows].to(gradient.dtype)
        ctx.save_for_backward(of_states, of_weight, of_bias)
        ctx.kinds = weight.dtype, bias.dtype if bias is not None else None
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_weight, of_bias = ctx.saved_tensors
        weight_kind, bias_kind = ctx.kinds
        return (
            None if of_states is None else of_states * of_total.to(of_states.dtype),
            None if of_weight is None else (of_weight * of_total).to(weight_kind),
            None if of_bias is None else (of_bias * of_total).to(bias_kind),
            None,
            None,
        )
