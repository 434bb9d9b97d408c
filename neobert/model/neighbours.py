"""Whether what a model says of a text depends on which others share its batch.

It should not, but padding gets into some: FNet mixes all positions, convolutions reach over the end of a text,
attention by landmarks or blocks divides the padded length, and some count positions from the left, whichever side is
padded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Example = Mapping[str, Any]
Batch = Mapping[str, Tensor]

ROUNDING = 1e-12
"""Differences up to this, relative to the largest logit, are those of sums in another order, in float64. Models that
compute some in float32 whatever comes in show larger ones without any padding, too."""

SHORTEST = 3
"""Tokens of the shortest text that is tried: one beside [CLS] and [SEP]."""

log = logging.getLogger(__name__)


def matter(
    model: Any, longest: Example, special: Collection[int], collate: Callable[[Sequence[Example]], Batch]
) -> bool:
    """Whether the classifier, in evaluation mode, says something else of texts that share a batch than of each alone.

    The texts are made from the `longest`, by leaving out tokens that are not `special`. A copy of the model computes
    them, in float64: padding's influence may be small (at the beginning all logits are), but rounding's is far smaller;
    how large it is, a batch without padding shows. Where the model cannot compute that, nothing shows that padding is
    harmless.
    """
    texts = [_shortened(longest, special, length) for length in _lengths(len(longest["input_ids"]))]
    device = next(model.parameters()).device
    own = copy.deepcopy(model).double().eval()
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            alone = torch.cat([_logits(own, collate([text]), device) for text in texts])
            together = _logits(own, collate(texts), device)
            unpadded = _logits(own, collate(texts[-1:] * len(texts)), device)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            log.warning("whether padding changes what %s says cannot be computed (%s); it is taken as if it did",
                        type(model).__name__, str(error).partition("\n")[0])  # fmt: skip
            return True
    rounding = (unpadded - alone[-1]).abs().max()
    same = (together - alone).abs().max() <= 100 * rounding + ROUNDING * alone.abs().max()
    return not bool(same)  # of NaN neither is true


def _lengths(longest: int) -> list[int]:
    """Near ones, for models that take tokens in twos and fours, and far shorter ones."""
    wanted = {longest, longest - 1, longest - 2, longest - 3, longest // 2, longest // 4}
    return sorted(length for length in wanted if length >= min(SHORTEST, longest))


def _shortened(text: Example, special: Collection[int], length: int) -> Example:
    ids = np.asarray(text["input_ids"])
    ordinary = np.flatnonzero(~np.isin(ids, list(special)))
    kept = np.delete(np.arange(len(ids)), ordinary[: len(ids) - length])
    return {name: value[kept] if np.ndim(value) else value for name, value in text.items() if name != "labels"}


def _logits(model: Any, batch: Batch, device: torch.device) -> Tensor:
    found: Tensor = model(**{name: tensor.to(device) for name, tensor in batch.items() if name != "tokens"}).logits
    return found
