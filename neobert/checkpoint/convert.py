"""From the names in a checkpoint to those of the model, which are the published ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neobert.checkpoint.errors import UnusableCheckpoint

_WRAPPERS = ("_orig_mod", "module")
"""What torch.compile and DistributedDataParallel put before a name, or into it."""

_TABLES = ("freqs_cis", "freqs_cos", "freqs_sin")
"""RoPE's, which older code kept as buffers. They follow from the configuration."""


def unwrapped(name: str) -> str:
    """The name of a weight without what a wrapper has put before it, or into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the published names; raises `UnusableCheckpoint` when two of them claim one name.

    - `_orig_mod.` and `module.` go, wherever they stand
    - a bare encoder (`encoder.weight`, ...) gets the name that it has under a head: `model.`
    - `ffn.w1` and `ffn.w2` become `ffn.w12`, with the gate first

    `qkv` stays as it is: all layouts interleave it head by head.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        parts = unwrapped(name).split(".")
        if parts[-1] in _TABLES:
            continue
        if parts[:2] == ["model", "decoder"]:
            parts = parts[1:]
        short = ".".join(parts)
        if short in named and not torch.equal(named[short], tensor):
            raise UnusableCheckpoint(f"two different weights are called {short}")
        named[short] = tensor
    if "encoder.weight" in named:
        encoder = ("encoder.", "transformer_encoder.", "layer_norm.")
        named = {f"model.{name}" if name.startswith(encoder) else name: tensor for name, tensor in named.items()}
    for name in [name for name in named if name.endswith(".ffn.w1.weight")]:
        other = name.replace(".w1.", ".w2.")
        if other in named:
            named[name.replace(".w1.", ".w12.")] = torch.cat([named.pop(name), named.pop(other)])
    return named
