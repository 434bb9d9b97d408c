"""Repairs of the libraries underneath, each with its reason."""

from __future__ import annotations

import logging
import sys
import warnings

import accelerate.utils.other


def spare_deepspeed_import() -> None:
    """Keeps accelerate from importing DeepSpeed in a training that does not use it: 0.3 s, and a warning of its own.

    It does so whenever a model is unwrapped, only to ask whether that is a DeepSpeed engine. Nothing is one before
    DeepSpeed has been imported.
    """
    accelerate.utils.other.is_deepspeed_available = lambda: "deepspeed" in sys.modules


def quiet_deepspeed() -> None:
    """Silences two warnings of what is meant, one of them several times a step."""
    warnings.filterwarnings(  # DeepSpeed calls these by names that newer versions of torch frown upon
        "ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning
    )
    # Trainer tells accelerate that it accumulates by itself; accelerate then finds another number in DeepSpeed's.
    logging.getLogger("accelerate.accelerator").addFilter(
        lambda record: "Gradient accumulation steps mismatch" not in str(record.msg)
    )
