"""Repairs of the libraries underneath, each with its reason."""

from __future__ import annotations

import accelerate.utils.other


def spare_deepspeed_import() -> None:
    """Keeps accelerate from importing DeepSpeed in a training that does not use it: 0.3 s, and a warning of its own.

    It does so whenever a model is unwrapped, only to ask whether that is a DeepSpeed engine.
    """
    accelerate.utils.other.is_deepspeed_available = lambda: False
