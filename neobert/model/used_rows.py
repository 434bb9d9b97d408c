"""The embeddings of words that the training texts have: these alone are trained.

A task's texts use a part of the vocabulary, and no gradient ever reaches the rest. AdamW would still read and write the
moments of every row at every step, which takes as long as computing a small batch, and hold them in memory: of
XLM-RoBERTa's weights, two thirds are embeddings. Without weight decay, which reaches all rows, the trained weights are
the same ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

log = logging.getLogger(__name__)


def train_used_rows(model: Any, ids: np.ndarray) -> UsedRows | None:
    """Leaves only the rows of `ids`, and that of padding, among the weights of `model` that are trained.

    None where that cannot be: a model whose embeddings have another form, or serve as the weights of something else, or
    whose code nobody has looked at.
    """
    whole = embedding_of_words(model)
    if whole is None:
        return None
    is_used = np.zeros(whole.num_embeddings, bool)
    is_used[ids] = True
    for number in (whole.padding_idx, model.config.pad_token_id):
        if number is not None and 0 <= number < len(is_used):
            is_used[number] = True
    rows = UsedRows(whole, torch.from_numpy(np.flatnonzero(is_used)))
    model.set_input_embeddings(rows)
    if model.get_input_embeddings() is not rows:
        model.set_input_embeddings(whole)
        return None
    log.info("vocabulary: %d of %d entries are in the texts, and are trained", is_used.sum(), len(is_used))
    return rows


def embedding_of_words(model: Any) -> nn.Embedding | None:
    """Return the embeddings of which a part can be trained; None where a model has none such."""
    if not type(model).__module__.startswith(("neobert.", "transformers.models.")):
        return None
    try:
        found = model.get_input_embeddings()
    except NotImplementedError:  # CANINE has none of words
        return None
    plain = type(found) is nn.Embedding and not found.sparse and not found.scale_grad_by_freq and found.max_norm is None
    if not plain:
        return None
    owners = [module for module in model.modules() for weight in module.parameters(recurse=False)
              if weight is found.weight]  # fmt: skip
    return found if owners == [found] else None


class UsedRows(nn.Module):
    """An embedding, for those who compute with it, save it and load it; its parameter has the `used` rows alone.

    `used` are their numbers in `whole`, ascending, (rows,). In training, no others may be asked for.
    """

    def __init__(self, whole: nn.Embedding, used: Tensor):
        super().__init__()
        weight = whole.weight.detach()
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        self.padding_idx = whole.padding_idx
        self.used = used
        self.weight = nn.Parameter(weight[used.to(weight.device)], whole.weight.requires_grad)
        # No buffers: DistributedDataParallel sends those from process to process, before each step.
        self._place = torch.full((whole.num_embeddings,), -1).index_copy_(0, used, torch.arange(len(used)))
        self._padding = None if whole.padding_idx is None else int(self._place[whole.padding_idx])
        self._others = weight
        self._whole: Tensor | None = None
        self.register_state_dict_post_hook(_save_whole)
        self.register_load_state_dict_pre_hook(_load_whole)

    def forward(self, ids: Tensor) -> Tensor:
        if not self.training:
            return embedding(ids, self.whole())
        self._place = self._place.to(ids.device)
        return embedding(self._place[ids], self.weight, self._padding)

    def train(self, mode: bool = True) -> UsedRows:
        self._whole = None
        return super().train(mode)

    def whole(self) -> Tensor:
        """All rows, (entries, hidden size), in a tensor of their own; put together once, until training goes on."""
        if self._whole is not None:
            return self._whole
        trained = self.weight.detach()
        whole = self._others.to(trained, copy=True).index_copy_(0, self.used.to(trained.device), trained)
        self._whole = None if self.training else whole
        return whole

    def take(self, whole: Tensor) -> Tensor:
        """Makes these the rows that are not in use, and gives those that are."""
        self._others, self._whole = whole.detach().clone(), None
        return whole[self.used.to(whole.device)]


def _save_whole(module: UsedRows, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    state_dict[f"{prefix}weight"] = module.whole()


def _load_whole(module: UsedRows, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """What has not as many rows stays as it is, and is refused by what loads it."""
    name = f"{prefix}weight"
    found = state_dict.get(name)
    if found is not None and found.shape == (module.num_embeddings, module.embedding_dim):
        state_dict[name] = module.take(found)  # type: ignore[index]  # torch hands over a copy
