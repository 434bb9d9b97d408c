"""Values that the processes of a training tell each other: as JSON in tensors.

torch's and accelerate's functions for objects send pickles, and to read a pickle is to run whatever code its sender put
into it. Processes find each other over a network that others may use, too, so no message is more than data.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, distributed

LIMIT = 256 << 20
"""Bytes of a message. The largest ones list the files of a checkpoint, 200 bytes each."""


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank. They are of JSON's kinds: a tuple arrives as a list.

    Raises `ValueError` for what is no message of ours.
    """
    if not _is_group():
        return [_decode(_encode(value))]
    message = _tensor(_encode(value))
    sizes = [torch.zeros(1, dtype=torch.int64, device=message.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(message)], device=message.device))
    lengths = [_checked(int(size)) for size in sizes]
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device=message.device)
    padded[: len(message)] = message
    parts = [torch.zeros_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    return [_decode(_bytes(part[:length])) for part, length in zip(parts, lengths, strict=True)]


def broadcast(value: Any) -> Any:
    """Return the main process's value in all of them; those of the others do not matter. As `gather` in all else."""
    if not _is_group():
        return _decode(_encode(value))
    message = _tensor(_encode(value) if distributed.get_rank() == 0 else b"")
    size = torch.tensor([len(message)], device=message.device)
    distributed.broadcast(size, 0)
    if distributed.get_rank() != 0:
        message = torch.zeros(_checked(int(size)), dtype=torch.uint8, device=message.device)
    distributed.broadcast(message, 0)
    return _decode(_bytes(message))


def _is_group() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _decode(message: bytes) -> Any:
    return json.loads(message)


def _tensor(message: bytes) -> Tensor:
    device = "cuda" if "nccl" in str(distributed.get_backend()) else "cpu"
    return torch.frombuffer(bytearray(message) or bytearray(1), dtype=torch.uint8)[: len(message)].to(device)


def _bytes(message: Tensor) -> bytes:
    return message.cpu().numpy().tobytes()


def _checked(size: int) -> int:
    if not 0 < size <= LIMIT:
        raise ValueError(f"another process announced a message of {size} bytes; expected 1 to {LIMIT}")
    return size
