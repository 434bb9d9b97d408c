"""Batches of any classifier, computed in groups of texts of like length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def split_by_length(lengths: list[int], call: int) -> list[list[int]]:
    """Rows of a batch in groups, each to be padded to its own longest, so that all of it costs least.

    `call` is what a group costs by itself, in tokens. By dynamic programming over the rows, shortest first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best: list[tuple[int, int]] = [(0, 0)]  # of the first n rows: the cost, and where the last group begins
    for stop in range(1, len(order) + 1):
        width = lengths[order[stop - 1]]
        best.append(min((best[start][0] + call + width * (stop - start), start) for start in range(stop)))
    groups, stop = [], len(order)
    while stop:
        start = best[stop][1]
        groups.append(order[start:stop])
        stop = start
    return groups


def of_one_length(lengths: list[int]) -> list[list[int]]:
    """Rows of a batch in groups that need no padding at all, shortest first."""
    return [[row for row, its in enumerate(lengths) if its == length] for length in sorted(set(lengths))]


CALL = {"cpu": 64, "cuda": 4096}
"""What one more call of a model costs, in tokens: kernels have to be started, and small ones fill no GPU."""


def in_groups(model: Any, without_padding: bool = False) -> None:
    """Lets any classifier compute a batch in groups of texts of like length, and give the logits in their order.

    `without_padding` those of a group are of the very same length: for models whose logits padding changes.
    """
    forward = model.forward

    def grouped(input_ids: Tensor, attention_mask: Tensor, **more: Any) -> Any:
        lengths = attention_mask.sum(dim=1).tolist()
        if without_padding:
            groups = of_one_length(lengths)
        else:
            groups = split_by_length(lengths, CALL.get(input_ids.device.type, CALL["cuda"]))
        if len(groups) == 1:
            return forward(input_ids=input_ids, attention_mask=attention_mask, **more)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        left = bool((attention_mask[:, 0] == 0).any())
        parts = []
        for rows in groups:
            width = max(lengths[row] for row in rows)
            columns = slice(-width, None) if left else slice(width)
            parts.append(forward(**{name: tensor[rows][:, columns] for name, tensor in inputs.items()}))
        order = torch.tensor([row for rows in groups for row in rows], device=input_ids.device)
        logits = torch.cat([part.logits for part in parts])
        parts[0].logits = torch.empty_like(logits).index_copy(0, order, logits)
        return parts[0]

    grouped.__wrapped__ = forward  # type: ignore[attr-defined]  # for those who look at what it takes
    model.forward = grouped
