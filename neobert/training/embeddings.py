"""Which rows of embeddings a training is of: decided when it begins, and kept in its checkpoints.

These hold moments of the rows that are trained, and of no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neobert.errors import RunError
from neobert.model.used_rows import UsedRows, train_used_rows

NAME = "used_rows.npy"


def train_rows_in_use(model: Any, ids: np.ndarray, pays: bool, checkpoint: Path | None, unlisted: bool = False) -> bool:
    """Whether the rows of `ids` alone are trained: as in the `checkpoint`, or without one where it `pays`.

    `unlisted` tells that an earlier version, which kept no list of rows, trained those of its texts. Raises `RunError`
    where the checkpoint is of other rows.
    """
    if checkpoint is None:
        return pays and train_used_rows(model, ids) is not None
    file = checkpoint / NAME
    if not file.exists():
        return unlisted and train_used_rows(model, ids) is not None
    try:
        known = np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{file} is damaged: {error}. Remove {checkpoint}, to go on from the one before it") from None
    rows = train_used_rows(model, known)
    if rows is None or len(rows.used) != len(known) or not np.isin(ids, known).all():
        raise RunError(
            f"{checkpoint} was trained with other embeddings or tokens than there are now: the libraries or files of "
            "the tokenizer or model have changed. Start with those of before, or remove the checkpoints to begin anew."
        )
    return True


def save_rows_in_use(model: Any, directory: Path) -> None:
    for module in model.modules():
        if isinstance(module, UsedRows):
            np.save(directory / NAME, module.used.numpy())
