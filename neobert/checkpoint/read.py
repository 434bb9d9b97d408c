"""The weights of a checkpoint, as they lie in its files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.checkpoint.find import Found

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def read(found: Found) -> dict[str, Tensor]:
    """Name to tensor, in host memory; raises `UnusableCheckpoint` for files that cannot be read."""
    weights = _read(found)
    if not weights:
        raise UnusableCheckpoint(f"{found.directory} holds no weights")
    return weights


def _read(found: Found) -> dict[str, Tensor]:
    directory = found.directory
    if found.layout == "DeepSpeed":
        return _of_deepspeed(directory)
    if found.layout == "state_dict.pt":
        return _of_pickle(directory / "state_dict.pt")
    for name, reader in _KINDS.items():
        index = directory / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return {name: tensor for file in files for name, tensor in reader(directory / file).items()}
        if (directory / name).is_file():
            return reader(directory / name)
    raise AssertionError(f"{directory} is no {found.layout}")


def _of_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UnusableCheckpoint(f"{file} cannot be read: {error}") from None


def _of_pickle(file: Path) -> dict[str, Tensor]:
    """Of nothing but tensors: what could run code when it is read is refused."""
    try:
        return _unwrapped(file, torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).strip().splitlines()[0]
        raise UnusableCheckpoint(f"{file} cannot be read as a file of tensors: {first}") from None


def _of_deepspeed(directory: Path) -> dict[str, Tensor]:
    """By DeepSpeed's own conversion, which unpickles the shards: read only those that you trust.

    What its optimiser keeps is in float32, whatever the model was trained in. Without ZeRO there are no shards, and
    the model is whole in the first file.
    """
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError:
        message = (
            f"{directory} holds shards of DeepSpeed: pip install 'neobert-slurm[deepspeed]' brings what reads them"
        )
        raise UnusableCheckpoint(message) from None
    try:
        if any(directory.glob("*zero_pp_rank_*_optim_states.pt")):
            return dict(get_fp32_state_dict_from_zero_checkpoint(str(directory.parent), tag=directory.name))
        whole = directory / "mp_rank_00_model_states.pt"
        return _unwrapped(whole, torch.load(whole, map_location="cpu", weights_only=False))
    except Exception as error:  # noqa: BLE001  # its own checks raise ValueError, KeyError, and whatever pickle raises
        first = (str(error).strip().splitlines() or [""])[0]
        message = f"the shards in {directory} cannot be put together: {type(error).__name__}: {first}"
        raise UnusableCheckpoint(message) from None


def _unwrapped(file: Path, content: Any) -> dict[str, Tensor]:
    """A training may have saved its weights under a name, beside other things."""
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UnusableCheckpoint(f"{file} does not hold a mapping of names to tensors")
    return content


_KINDS = {"model.safetensors": _of_safetensors, "pytorch_model.bin": _of_pickle}
"""What each file of weights is read by; those in several parts have an index beside them."""
