"""From batches as they come, padded or packed, to tokens that lie end to end, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neobert.model.attention import Segments


@dataclass(frozen=True)
class Layout:
    """The tokens of a batch: `ids` and `positions` are (tokens,); `back` puts their states where they came from."""

    ids: Tensor
    positions: Tensor
    segments: Segments
    width: int
    """No sequence has more tokens than this, nor a position from here on."""
    back: Callable[[Tensor], Tensor]
    take: Callable[[Tensor], Tensor]
    """The other way round: of (batch x length, ...), what belongs to the tokens."""
    rows: Tensor
    """(sequences,): which row of the batch each is from."""


def packed_layout(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    lengths: Sequence[int] | None = None,
    max_seqlen: int = 0,
    position_ids: Tensor | None = None,
) -> Layout:
    """Of (1, tokens); `back` gives (1, tokens, hidden size)."""
    if len(input_ids) != 1:
        raise ValueError(f"packed sequences come as (1, tokens), and input_ids is {tuple(input_ids.shape)}")
    segments = Segments(cu_seqlens, input_ids.shape[1], lengths, max_seqlen)
    positions = segments.positions if position_ids is None else position_ids[0]
    return Layout(input_ids[0], positions, segments, segments.longest, lambda states: states[None], _all,
                  torch.zeros(len(cu_seqlens) - 1, dtype=torch.int64, device=input_ids.device))  # fmt: skip


def padded_layout(input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None = None) -> Layout:
    """Of (batch, length), without what is padding; `back` gives (batch, length, hidden size), zero at padding."""
    batch, width = input_ids.shape
    if position_ids is None:
        position_ids = torch.arange(width, device=input_ids.device)
    position_ids = position_ids.expand(batch, width)
    lengths = [width] * batch if attention_mask is None else attention_mask.sum(dim=1).tolist()
    if all(length == width for length in lengths):
        cu_seqlens = torch.arange(0, batch * width + 1, width, dtype=torch.int32, device=input_ids.device)
        segments = Segments(cu_seqlens, batch * width, lengths)
        ids, positions = input_ids.flatten(), position_ids.flatten()
        return Layout(ids, positions, segments, width, lambda states: states.unflatten(0, (batch, width)), _all,
                      torch.arange(batch, device=input_ids.device))  # fmt: skip

    assert attention_mask is not None
    order = sorted(range(batch), key=lengths.__getitem__)  # equally long ones share a call
    found = attention_mask[order].bool().nonzero()
    places = torch.tensor(order, device=input_ids.device)[found[:, 0]] * width + found[:, 1]
    order = [row for row in order if lengths[row]]
    lengths = [lengths[row] for row in order]
    ends = torch.tensor([0, *lengths], device=input_ids.device).cumsum(0, dtype=torch.int32)

    def back(states: Tensor) -> Tensor:
        empty = states.new_zeros(batch * width, states.shape[-1])
        return empty.index_copy(0, places, states).unflatten(0, (batch, width))

    def take(values: Tensor) -> Tensor:
        return values[places]

    ids, positions = take(input_ids.flatten()), take(position_ids.flatten())
    return Layout(ids, positions, Segments(ends, len(places), lengths), width, back, take,
                  torch.tensor(order, device=input_ids.device))  # fmt: skip


def fixed_layout(input_ids: Tensor, attention_mask: Tensor, tokens: int, fillers: int) -> Layout:
    """As `padded_layout`, with shapes that do not depend on how long the texts are: nothing waits for the device.

    There are at most `tokens` of them. What is missing are copies of the batch's first place, in `fillers` sequences of
    at most the batch's width that follow those of the batch: `rows` has a number for each of these, too.
    """
    batch, width = input_ids.shape
    device = input_ids.device
    none = torch.zeros(1, dtype=torch.int64, device=device)
    ends = attention_mask.sum(dim=1).cumsum(0)
    filled = ends[-1] + width * torch.arange(1, fillers + 1, device=device)
    cu_seqlens = torch.cat([none, ends, filled.clamp(max=tokens)])

    each = torch.arange(tokens, device=device)
    row = torch.searchsorted(ends, each, right=True)  # `batch` for what fills
    first = torch.cat([attention_mask.argmax(dim=1), none])
    column = each - cu_seqlens.index_select(0, row) + first.index_select(0, row)
    last = batch * width  # where what fills is put, and cut off again
    places = torch.where(row < batch, row * width + column, last)
    sources = torch.where(row < batch, places, 0)

    def back(states: Tensor) -> Tensor:
        empty = states.new_zeros(last + 1, states.shape[-1])
        return empty.index_copy(0, places, states)[:last].unflatten(0, (batch, width))

    def take(values: Tensor) -> Tensor:
        return values.index_select(0, sources)

    positions = torch.arange(width, device=device).expand(batch, width)
    segments = Segments(cu_seqlens.int(), tokens, at_most=width)
    return Layout(take(input_ids.flatten()), take(positions.flatten()), segments, width, back, take,
                  torch.arange(batch + fillers, device=device))  # fmt: skip


def _all(values: Tensor) -> Tensor:
    return values
