"""Where the time of a training goes, and how much of the device's arithmetic is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neobert.model import NeoBERTConfig

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "A40": 149.7,
               "V100": 125.0}  # fmt: skip
"""Dense 16-bit matrix products per second, by a part of the device's name, as NVIDIA's data sheets have it (SXM)."""


class Stopwatch:
    """Seconds that were spent in each part of a step. On GPUs, what the device spent, without making the host wait."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        start = self._mark()
        try:
            yield
        finally:
            self.add(part, start, self._mark())

    def mark(self) -> float | torch.cuda.Event:
        return self._mark()

    def add(self, part: str, start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> None:
        if isinstance(start, float):
            assert isinstance(end, float)
            self._seconds[part] = self._seconds.get(part, 0.0) + end - start
        else:
            assert not isinstance(end, float)
            self._pending.append((part, start, end))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        if self._pending:
            self._pending[-1][2].synchronize()
        for part, start, end in self._pending:
            self._seconds[part] = self._seconds.get(part, 0.0) + start.elapsed_time(end) / 1000
        found, self._seconds, self._pending = self._seconds, {}, []
        return found

    def _mark(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


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
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, the most that tensors have taken; otherwise the most that this process has."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
