"""The weights of a checkpoint, as they lie in its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from neobert.checkpoint.damage import check_small_files, fault_of, read_mapping, unreadable
from neobert.checkpoint.errors import UnusableCheckpoint, reason_of
from neobert.checkpoint.find import Found, layout_of
from neobert.checkpoint.unpickling import foreign_class, refusal, restricted
from neobert.config.extras import install

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def read(found: Found) -> dict[str, Tensor]:
    """Name to tensor, in host memory; raises `UnusableCheckpoint` for files that cannot be read."""
    weights = _read(found)
    if not weights:
        raise UnusableCheckpoint(f"{found.directory} holds no weights")
    return weights


def find_damage(directory: Path) -> str | None:
    """Which file of a Hugging Face model is damaged, and how: what their libraries raise seldom names it."""
    layout = layout_of(directory)
    try:
        check_small_files(directory)
        if layout is not None and layout != "DeepSpeed":
            read(Found(directory, layout, directory / "config.json", None))
    except UnusableCheckpoint as error:
        return str(error)
    return None


def _read(found: Found) -> dict[str, Tensor]:
    directory = found.directory
    if found.layout == "DeepSpeed":
        return _of_deepspeed(directory)
    if found.layout == "state_dict.pt":
        return _of_pickle(directory / "state_dict.pt")
    for name, reader in _KINDS.items():
        index = directory / f"{name}.index.json"
        if index.is_file():
            return {name: tensor for file in _parts(index) for name, tensor in reader(file).items()}
        if (directory / name).is_file():
            return reader(directory / name)
    raise AssertionError(f"{directory} is no {found.layout}")


def _parts(index: Path) -> list[Path]:
    """The files in which weights lie that are too many for one."""
    weights = read_mapping(index).get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise unreadable(index, "it has no weight_map, which tells the file of each weight")
    return [index.parent / name for name in sorted(set(weights.values()))]


def _of_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise unreadable(file, f"it is cut short or damaged ({reason_of(error)})") from None


def _of_pickle(file: Path) -> dict[str, Tensor]:
    """Of nothing but tensors: what could run code when it is read is refused."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  # of a damaged file, pickle raises whatever its bytes lead to
        # What torch says goes on to advise to read it without this protection.
        foreign = foreign_class(error)
        if foreign and not fault_of(file):
            raise UnusableCheckpoint(refusal(file, foreign)) from None
        raise unreadable(
            file, "it is cut short or damaged, or no file of tensors that torch.save has written"
        ) from None
    return _unwrapped(file, content)


def _of_deepspeed(directory: Path) -> dict[str, Tensor]:
    """By DeepSpeed's own conversion.

    What its optimiser keeps is in float32, whatever the model was trained in. Without ZeRO there are no shards, and
    the model is whole in the first file.
    """
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError:
        message = f"{directory} holds shards of DeepSpeed, and the package deepspeed is missing: {install('deepspeed')}"
        raise UnusableCheckpoint(message) from None
    try:
        with restricted():
            if any(directory.glob("*zero_pp_rank_*_optim_states.pt")):
                return dict(get_fp32_state_dict_from_zero_checkpoint(str(directory.parent), tag=directory.name))
            whole = directory / "mp_rank_00_model_states.pt"
            return _unwrapped(whole, torch.load(whole, map_location="cpu"))
    except UnusableCheckpoint:
        raise
    except Exception as error:  # noqa: BLE001  # its own checks raise ValueError, KeyError, and whatever pickle raises
        broken = [(file, fault) for file in sorted(directory.glob("*_states.pt")) if (fault := fault_of(file))]
        what = f"{broken[0][0].name}: {broken[0][1]}" if broken else f"{type(error).__name__}: {reason_of(error)}"
        message = f"the shards in {directory} cannot be put together: {what}. Fetch or copy them again"
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
