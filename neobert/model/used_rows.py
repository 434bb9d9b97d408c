"""The embeddings of words that the training texts have: these alone are trained.

A task's texts use a part of the vocabulary, and no gradient ever reaches the rest. AdamW would still read and write the
moments of every row at every step, which takes as long as computing a small batch, and hold them in memory: of
XLM-RoBERTa's weights, two thirds are embeddings. Without weight decay the trained weights are the same ones; with it,
rows that are not in use stay as they came and are not made smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

log = logging.getLogger(__name__)


def train_used_rows(model: Any, ids: Tensor) -> bool:
    """Leaves only the rows of `ids`, and that of padding, among the weights of `model` that are trained.

    False where that cannot be: a model whose embeddings have another form, or serve as the weights of something else.
    """
    whole = _embedding(model)
    if whole is None:
        return False
    padding = [number for number in (whole.padding_idx, model.config.pad_token_id) if number is not None]
    used = torch.cat([ids.flatten().cpu().long(), torch.tensor(padding, dtype=torch.long)]).unique()
    model.set_input_embeddings(UsedRows(whole, used))
    log.info("vocabulary: %d of %d entries are in the texts, and are trained", len(used), whole.num_embeddings)
    return True


def _embedding(model: Any) -> nn.Embedding | None:
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

    place: Tensor

    def __init__(self, whole: nn.Embedding, used: Tensor):
        super().__init__()
        weight = whole.weight.detach()
        place = torch.full((whole.num_embeddings,), -1, dtype=torch.long)
        place[used] = torch.arange(len(used))
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        self.padding_idx = None if whole.padding_idx is None else int(place[whole.padding_idx])
        self.weight = nn.Parameter(weight[used.to(weight.device)], whole.weight.requires_grad)
        self.register_buffer("place", place.to(weight.device), persistent=False)
        # No buffers: DistributedDataParallel sends those from process to process, before each step.
        self._used, self._others = used, weight
        self._whole: Tensor | None = None
        self.register_state_dict_post_hook(_save_whole)
        self.register_load_state_dict_pre_hook(_load_whole)

    def forward(self, ids: Tensor) -> Tensor:
        if self.training:
            return embedding(self.place[ids], self.weight, self.padding_idx)
        if self._whole is None:
            self._whole = self.whole()
        return embedding(ids, self._whole)

    def train(self, mode: bool = True) -> UsedRows:
        self._whole = None
        return super().train(mode)

    def whole(self) -> Tensor:
        """All rows, (entries, hidden size), in a tensor of their own."""
        trained = self.weight.detach()
        return self._others.to(trained, copy=True).index_copy_(0, self._used.to(trained.device), trained)

    def take(self, whole: Tensor) -> Tensor:
        """Makes these the rows that are not in use, and gives those that are."""
        self._others, self._whole = whole.detach().clone(), None
        return whole[self._used.to(whole.device)]


def _save_whole(module: UsedRows, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    state_dict[f"{prefix}weight"] = module.whole()


def _load_whole(module: UsedRows, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    name = f"{prefix}weight"
    if name in state_dict:
        state_dict[name] = module.take(state_dict[name])  # type: ignore[index]  # torch hands over a copy
