"""What first tokens attend to, on CPUs, without keys and values of all the others.

One token a sequence asks, so its query can be led through the weights of keys once, instead of each token's state: with
weights K of a head, q . (K x) is (K^T q) . x. Of values, likewise, the weighted sum of states is projected, and not
each state. Two products with all tokens, and four in backward, become such with one token a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neobert.model.attention import Segments
from neobert.model.plain_attention import dropped, masks


def first_attention(
    query: Tensor, states: Tensor, to_key: nn.Linear, to_value: nn.Linear, segments: Segments, drop: float
) -> Tensor:
    """As `attention_of_first`, with the keys and values that the layers make of `states`, (tokens, hidden size)."""
    if not segments.runs:
        return torch.empty_like(query)
    heads, buckets = query.shape[1], segments.buckets
    query = buckets.firsts.there(query) * query.shape[-1] ** -0.5
    asked = torch.einsum("nhs,hsd->nhd", query, to_key.weight.unflatten(0, (heads, -1)))
    # The same for all tokens of a sequence; but a weight without a gradient would be an unused one.
    offset = (query * to_key.bias.unflatten(0, (heads, -1))).sum(-1, keepdim=True)
    counts = [count for _, count in buckets.runs]
    drawn = masks([(count, heads, length) for length, count in buckets.runs], query, drop)
    tokens = buckets.tokens.there(states).split([length * count for length, count in buckets.runs])
    found, shares = [], []
    for ask, add, x, count, hidden, mask in zip(
        asked.split(counts), offset.split(counts), tokens, counts, buckets.hidden, drawn, strict=True
    ):
        x = x.unflatten(0, (count, -1))
        scores = torch.baddbmm(add, ask, x.transpose(1, 2))
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None], -torch.inf)
        probabilities = dropped(scores.softmax(dim=-1), mask)
        found.append(torch.bmm(probabilities, x))
        shares.append(probabilities.sum(-1, keepdim=True))
    mixed = torch.einsum("nhd,hsd->nhs", torch.cat(found), to_value.weight.unflatten(0, (heads, -1)))
    return buckets.firsts.back(mixed + torch.cat(shares) * to_value.bias.unflatten(0, (heads, -1)))
