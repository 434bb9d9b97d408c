"""Weights at aligned places in memory, so that a resumed training on CPUs computes what the undisturbed one does.

Matrix libraries choose their kernels by the alignment of a matrix, and these round differently: already the product of
a single row with a matrix at a multiple of 16 bytes differs from the same product 8 bytes further on. New weights are
aligned to 64 bytes. Weights that were mapped from a file are aligned to whatever stands before them in that file, and
a checkpoint has other names in it than the model that a training begins with.
"""

from __future__ import annotations

from itertools import chain

from torch import nn

BYTES = 64
"""PyTorch's own alignment of memory on CPUs."""


def align_weights(model: nn.Module) -> None:
    """Moves weights and buffers on CPUs to aligned places, where they are not at such."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % BYTES:
            tensor.data = tensor.data.clone()
