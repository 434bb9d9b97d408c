"""Which rows of embeddings a training is of: decided when it begins, and kept in its checkpoints.

These hold moments of the rows that are trained, and of no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from neobert.errors import RunError
from neobert.model.used_rows import UsedRows, embedding_of_words, train_used_rows

NAME = "used_rows.npy"


def train_rows_in_use(model: Any, ids: np.ndarray, pays: bool, checkpoint: Path | None) -> bool:
    """Whether the rows of `ids` alone are trained: as in the `checkpoint`, or without one where it `pays`.

    Raises `RunError` where the checkpoint is of other rows.
    """
    if checkpoint is None:
        return pays and train_used_rows(model, ids) is not None
    file = checkpoint / NAME
    if not file.exists() and not _has_moments_of_some_rows(model, checkpoint / "optimizer.pt"):
        return False
    try:
        known = np.load(file) if file.exists() else _with_padding(model, ids)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{file} is damaged: {error}. Remove {checkpoint}, to go on from the one before it") from None
    rows = train_used_rows(model, known)
    if rows is None or len(rows.used) != len(known) or not np.isin(ids, known).all():
        raise RunError(
            f"{checkpoint} was trained with other embeddings or tokens than there are now: the libraries or files of "
            "the tokenizer or model have changed. Start with those of before, or remove the checkpoints to begin anew."
        )
    return True


def _has_moments_of_some_rows(model: Any, file: Path) -> bool:
    """Tell if an older version, which did not write down the rows, has trained those of the training texts alone."""
    whole = embedding_of_words(model)
    if whole is None or not whole.weight.requires_grad or not file.exists():
        return False
    states = torch.load(file, map_location="cpu", mmap=True, weights_only=True)["state"].values()
    return not any(moment.shape == whole.weight.shape for state in states for moment in state.values())


def _with_padding(model: Any, ids: np.ndarray) -> np.ndarray:
    """The rows that older versions have trained: of the texts, and of padding."""
    whole = embedding_of_words(model)
    padding = (model.config.pad_token_id, whole.padding_idx if whole else None)
    return np.union1d(ids, [number for number in padding if number is not None])


def save_rows_in_use(model: Any, directory: Path) -> None:
    for module in model.modules():
        if isinstance(module, UsedRows):
            np.save(directory / NAME, module.used.numpy())
