"""Attention on CPUs as plain products of matrices, for what PyTorch's kernels there do not know or do slowly.

They know no dropout, and take long for 16-bit floats. Done operation by operation, most of the time of short texts
would go into autograd's records of each; here a whole layer's attention is one of them. A call for each length would
take longer than what it computes, too: texts of like lengths share one, padded to the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neobert.model.dropout import kept
from neobert.model.length_groups import split_by_length

Runs = Sequence[tuple[int, int]]
"""(length, how many in a row) of sequences that lie end to end."""

CALL, BALANCE = 128, 16
"""What one more run costs, in moved tokens; and the length of which a token's products take as long as moving it."""


@dataclass(frozen=True)
class Move:
    """To padded runs and back: `source` says which token stands at each place, `places` at which each token stands."""

    source: Tensor
    places: Tensor

    def there(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(0, self.source)

    def back(self, padded: Tensor) -> Tensor:
        return padded.index_select(0, self.places)

    def gradient_of_back(self, gradient: Tensor) -> Tensor:
        """Zero at padding, of which nothing comes back."""
        empty = gradient.new_zeros(len(self.source), *gradient.shape[1:])
        return empty.index_copy_(0, self.places, gradient)


@dataclass(frozen=True)
class Buckets:
    """Sequences of like lengths, padded to `runs` of equal ones.

    `hidden` says of each run, (count, length), what is padding, where each sequence's last token stands once more; None
    where there is none. `tokens` moves all of them, `firsts` one of each sequence.
    """

    runs: Runs
    hidden: tuple[Tensor | None, ...]
    tokens: Move
    firsts: Move
    _of_heads: dict[int, Move] = field(default_factory=dict)

    @staticmethod
    def of(lengths: Sequence[int]) -> Buckets:
        sizes = torch.tensor(lengths)
        starts = sizes.cumsum(0) - sizes
        groups = split_by_length([length + length * length // BALANCE for length in lengths], CALL)
        runs, sources, hidden, padding = [], [], [], []
        for rows in groups:
            its = sizes[rows, None]
            wide = its.clamp(min=1)  # of an empty sequence some other's token, so that there is one to look at
            columns = torch.arange(int(wide.max())).expand(len(rows), -1)
            runs.append((columns.shape[1], len(rows)))
            sources.append((starts[rows, None] + columns.minimum(wide - 1)).clamp(max=sum(lengths) - 1).flatten())
            hidden.append(columns >= wide)
            padding.append((columns >= its).flatten())
        source = torch.cat(sources)
        order = torch.tensor([row for rows in groups for row in rows])
        return Buckets(
            runs, tuple(each if each.any() else None for each in hidden),
            Move(source, _inverse(source, (~torch.cat(padding)).nonzero().squeeze(1))),
            Move(order, _inverse(order, torch.arange(len(order)))),
        )  # fmt: skip

    def of_heads(self, heads: int) -> Move:
        """Of (tokens x heads, head size), to (count x heads, length, head size) of each run, end to end.

        Products of matrices, one of each head, would have to sort what `tokens` moves once more.
        """
        if heads not in self._of_heads:
            here = torch.arange(len(self.tokens.source) * heads).view(-1, heads)
            parts = here.split([length * count for length, count in self.runs])
            order = torch.cat([
                part.view(count, length, heads).transpose(1, 2).flatten()
                for part, (length, count) in zip(parts, self.runs, strict=True)
            ])  # fmt: skip
            source = self.tokens.source[order // heads] * heads + order % heads
            places = _inverse(order, here.flatten()).view(-1, heads)[self.tokens.places].flatten()
            self._of_heads[heads] = Move(source, places)
        return self._of_heads[heads]


def _inverse(source: Tensor, places: Tensor) -> Tensor:
    """Of each number that stands at one of the `places` of `source`, at which."""
    return torch.empty_like(places).index_copy_(0, source[places], places)


def batches(tokens: Tensor, runs: Runs) -> list[Tensor]:
    """(count, heads, length, head size) of each run, of (tokens, heads, head size): views, nothing is copied."""
    # Split at once, and not cut out one by one: each cut's gradient would be as long as the whole.
    parts = tokens.split([length * count for length, count in runs])
    return [
        part.unflatten(0, (count, length)).transpose(1, 2) for part, (length, count) in zip(parts, runs, strict=True)
    ]


def plain_attention(query: Tensor, key: Tensor, value: Tensor, buckets: Buckets, drop: float) -> Tensor:
    """Of (tokens, heads, head size) tensors of one type."""
    with torch.autocast(query.device.type, enabled=False):
        mixed: Tensor = _Plain.apply(query, key, value, buckets, drop)
        return mixed


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, buckets: Buckets, drop: float) -> Tensor:
        shape, heads, scale = query.shape, query.shape[1], query.shape[-1] ** -0.5
        move = buckets.of_heads(heads)
        query, key, value = (move.there(x.flatten(0, 1)) for x in (query, key, value))
        query.mul_(scale)
        mixed = torch.empty_like(query)
        shapes = [(count * heads, length, length) for length, count in buckets.runs]
        drawn = masks(shapes, query, drop)
        probabilities = []
        parts = _parts(buckets.runs, heads, query, key, value, mixed)
        for (q, k, v, out), mask, hidden in zip(parts, drawn, buckets.hidden, strict=True):
            scores = torch.bmm(q, k.transpose(1, 2))
            if hidden is not None:
                scores.unflatten(0, (-1, heads)).masked_fill_(hidden[:, None, None], -torch.inf)
            found = scores.softmax(dim=-1)  # adds up in float32 by itself
            probabilities.append(found)
            torch.bmm(dropped(found, mask), v, out=out)
        ctx.save_for_backward(query, key, value, *probabilities, *(mask for mask in drawn if mask is not None))
        ctx.settings = buckets.runs, move, shape, scale
        return move.back(mixed).view(shape)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Padding has no part in it: what it asked is not looked at, and its probability is 0 for all that asked."""
        runs, move, shape, scale = ctx.settings
        query, key, value, *saved = ctx.saved_tensors
        probabilities, drawn = saved[: len(runs)], saved[len(runs) :] or [None] * len(runs)
        gradient = move.gradient_of_back(gradient.flatten(0, 1))
        gradients = [torch.empty_like(x) for x in (query, key, value)]
        parts = _parts(runs, shape[1], query, key, value, gradient, *gradients)
        for (q, k, v, g, of_q, of_k, of_v), p, mask in zip(parts, probabilities, drawn, strict=True):
            torch.bmm(dropped(p, mask).transpose(1, 2), g, out=of_v)
            of_probabilities = torch.bmm(g, v.transpose(1, 2))
            if mask is not None:
                of_probabilities.mul_(mask)
            of_scores = torch._softmax_backward_data(of_probabilities, p, -1, p.dtype)
            torch.bmm(of_scores, k, out=of_q)
            torch.bmm(of_scores.transpose(1, 2), q, out=of_k)
        gradients[0].mul_(scale)
        return *(move.back(each).view(shape) for each in gradients), None, None


def _parts(runs: Runs, heads: int, *moved: Tensor) -> Iterator[list[Tensor]]:
    """Of each run, (count x heads, length, head size) of each of the tensors: views."""
    sizes = [length * count * heads for length, count in runs]
    for (length, _), *parts in zip(runs, *(x.split(sizes) for x in moved), strict=True):
        yield [part.unflatten(0, (-1, length)) for part in parts]


def masks(shapes: Sequence[tuple[int, int, int]], like: Tensor, drop: float) -> list[Tensor | None]:
    """What probabilities are multiplied with, of each run; None where nothing is dropped."""
    if not drop:
        return [None] * len(shapes)
    sizes = [count * asking * length for count, asking, length in shapes]
    drawn = kept(sum(sizes), drop, like.dtype)
    return [part.view(shape) for part, shape in zip(drawn.split(sizes), shapes, strict=True)]


def dropped(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    return probabilities if mask is None else probabilities * mask
