"""Reading what torch.save wrote, without running code that a file brings along.

torch.load with `weights_only` builds tensors and plain values alone. DeepSpeed switches that off, because its shards
hold a few objects of its own, and so reading a shard would run whatever its writer put there. Here those classes are
allowed by name, and nothing else.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from neobert.checkpoint.errors import UnusableCheckpoint

_OF_DEEPSPEED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)


@contextmanager
def restricted() -> Iterator[None]:
    """While it lasts, torch.load builds nothing but tensors, plain values and DeepSpeed's own classes.

    This holds for libraries, too. A file with anything else raises `UnusableCheckpoint`, which names that.
    """
    load = torch.load

    @functools.wraps(load)
    def load_data(file: Any, *arguments: Any, **options: Any) -> Any:
        try:
            with torch.serialization.safe_globals(list(_allowed())):
                return load(file, *arguments, **options | {"weights_only": True})
        except pickle.UnpicklingError as error:
            foreign = foreign_class(error)
            if foreign is None:
                raise
            raise UnusableCheckpoint(refusal(file, foreign)) from None

    torch.load = load_data
    try:
        yield
    finally:
        torch.load = load


def foreign_class(error: Exception) -> str | None:
    """Return what a file holds beside tensors, by torch's message about it."""
    found = re.search(r"(?:GLOBAL|global) ((?:\w+\.)+\w+)", str(error))
    return found[1] if found else None


def refusal(file: Any, foreign: str) -> str:
    return (
        f"{file} cannot be read as a file of tensors: it also holds {foreign}, and what is no tensor could run code. "
        "Where it comes from, save the state_dict alone"
    )


def _allowed() -> Iterator[Any]:
    """Whoever reads what DeepSpeed wrote has imported it; others are spared the seconds that this takes."""
    for name in _OF_DEEPSPEED if "deepspeed" in sys.modules else ():
        module, _, attribute = name.rpartition(".")
        try:
            yield getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):  # a version that has no such class
            continue
