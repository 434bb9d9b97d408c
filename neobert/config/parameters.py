"""The number of parameters of a NeoBERT, by its sizes. The launcher uses it too, so it needs no torch."""

from __future__ import annotations

from typing import Protocol


class Shape(Protocol):
    """The sizes of an encoder, under the names that settings and configurations have for them."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...


def gated_size(intermediate_size: int) -> int:
    """Width of each of SwiGLU's two branches: 2/3 of `intermediate_size`, up to the next multiple of 8.

    With three matrices instead of two, the factor keeps the number of weights that of a plain feed-forward layer.
    """
    return -(-max(1, int(2 * intermediate_size / 3)) // 8) * 8


def matrices(shape: Shape) -> int:
    """Parameters in the matrices of the encoder's blocks: attention and feed-forward layers."""
    width = shape.hidden_size
    return shape.num_hidden_layers * (4 * width * width + 3 * width * gated_size(shape.intermediate_size))


def encoder(shape: Shape, vocabulary: int) -> int:
    """Parameters of the whole encoder: embeddings, blocks with two norms each, and a last norm."""
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    return vocabulary * shape.hidden_size + matrices(shape) + norms


def decoder(hidden_size: int, vocabulary: int, tied: bool, bias: bool) -> int:
    """Parameters of the head for masked words."""
    return (0 if tied else vocabulary * hidden_size) + (vocabulary if bias else 0)


def classifier(hidden_size: int, classes: int) -> int:
    """Parameters of the head for whole texts."""
    return (hidden_size + 1) * (hidden_size + classes)
