"""Where the time of a training goes, and how much of the device's arithmetic is used."""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.nn.parallel import DistributedDataParallel

from neobert.model import NeoBERTConfig

PEAK_TFLOPS = {
    "B200": 2250.0, "GH200": 989.0, "H200 NVL": 835.0, "H200": 989.0, "H100 NVL": 835.0, "H100 PCIe": 756.0,
    "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "A40": 149.7, "A30": 165.0, "L40S": 362.0, "L4": 121.0,
    "V100": 125.0,
}  # fmt: skip
"""Dense 16-bit matrix products per second by words of the device's name, as NVIDIA's data sheets have it. Of the names
that fit, the first counts; the bare ones are SXM modules."""


Mark: TypeAlias = float | torch.cuda.Event
"""A moment, in seconds or as the GPU comes to it."""


class Stopwatch:
    """Seconds that were spent in each part of a step. On GPUs, what the device spent, without making the host wait."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._spent: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        start = self.mark()
        try:
            yield
        finally:
            self.add(part, start, self.mark())

    def mark(self) -> Mark:
        """This moment, for `add`."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, part: str, start: Mark, end: Mark) -> None:
        """The time between two marks was spent in `part`."""
        self._spent.append((part, start, end))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        found: dict[str, float] = {}
        for part, start, end in self._spent:
            found[part] = found.get(part, 0.0) + _seconds(start, end)
        self._spent = []
        return found


def communication(model: Any) -> float | None:
    """Seconds that averaging gradients took in one backward pass, most of it while gradients were still computed.

    DDP measures that in the first ten passes and in every hundredth; None for models that are not in DDP.
    """
    if not isinstance(model, DistributedDataParallel):
        return None
    return float(model._get_ddp_logging_data().get("backward_comm_time", 0)) / 1e9


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, float):
        assert isinstance(end, float)
        return end - start
    assert not isinstance(end, float)
    end.synchronize()
    return start.elapsed_time(end) / 1000


def flops(config: NeoBERTConfig, tokens: float, squares: float, masked: float) -> float:
    """Floating-point operations of a training step's matrix products: three times those of the forward pass.

    `tokens` are real ones, `squares` the sum of the squared lengths of their sequences (for attention), `masked` how
    many are guessed. What gradient checkpointing computes a second time does not count, as is usual for MFU
    (https://arxiv.org/abs/2204.02311, appendix B).
    """
    hidden = config.hidden_size
    of_block = 4 * hidden * hidden + 3 * hidden * config.gated_size
    forward = 2 * tokens * config.num_hidden_layers * of_block
    forward += 4 * squares * hidden * config.num_hidden_layers
    forward += 2 * masked * hidden * config.vocab_size
    return 3.0 * forward


def peak_flops(device: torch.device, given: float | None) -> float | None:
    """Per second, of one device: as given (in TFLOPS) or as known by its name; None if neither."""
    if given is not None:
        return given * 1e12
    return known_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


MEASURED_SECONDS = 0.5


def measured_peak(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations per second of large matrix products in this precision: the best of half a second."""
    size = 8192 if device.type == "cuda" else 512
    one, other = torch.randn(2, size, size, device=device).to(kind)
    watch, best = Stopwatch(device), math.inf
    for _ in range(3):  # kernels are chosen in the first ones
        one @ other
    end = time.perf_counter() + MEASURED_SECONDS
    while best == math.inf or time.perf_counter() < end:
        with watch.time("product"):
            one @ other
        best = min(best, watch.read()["product"])
    if device.type == "cuda":
        del one, other  # which are not of the training
        torch.cuda.reset_peak_memory_stats(device)
    return 2 * size**3 / best


def known_peak(name: str) -> float | None:
    """Floating-point operations per second of a GPU of this name; None where it is not known, as of parts (MIG)."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    if "MIG" in words:
        return None
    return next((peak * 1e12 for known, peak in PEAK_TFLOPS.items() if set(known.split()) <= set(words)), None)


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, the most that tensors have taken; otherwise the most that this process has."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
