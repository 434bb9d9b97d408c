"""How far a trial is and how fast: progress.json, and the meter behind its figures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neobert.training.files import write_json

SECONDS_BETWEEN_WRITES = 1.0


class Meter:
    """Examples and real (non-padding) tokens per second of training; time spent otherwise does not count."""

    def __init__(self) -> None:
        self._samples = 0
        self._tokens: torch.Tensor | int = 0  # stays on the device until it is read, so that no step waits for it
        self._since = time.perf_counter()
        self.seconds = 0.0
        """How long it was from the reading before the last to the last one."""

    def add(self, samples: int, tokens: torch.Tensor | int) -> None:
        self._samples += samples
        self._tokens = self._tokens + tokens

    def read(self, accelerator: Any) -> dict[str, float]:
        """The rates since the last reading, summed over all processes: every one of them must call this."""
        self.seconds = seconds = max(time.perf_counter() - self._since, 1e-9)
        counts = torch.tensor([self._samples, int(self._tokens)], dtype=torch.float32, device=accelerator.device)
        samples, tokens = accelerator.reduce(counts, reduction="sum").tolist()
        self._samples, self._tokens, self._since = 0, 0, time.perf_counter()
        return {"samples_per_second": samples / seconds, "tokens_per_second": tokens / seconds}

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start


class Progress:
    """Keeps progress.json; written at most once a second, and whenever the phase changes."""

    def __init__(self, path: Path | None, step: int = 0, total_steps: int = 0):
        """`path` is None in processes that write no files; a resumed trial starts at its checkpoint's step."""
        self._path = path
        self._started = time.time()
        self._written = 0.0
        self._trained_from: tuple[float, int, float] | None = None
        self.share: float | None = None
        """How much of the training is done, where its steps do not tell; how many there will be is then a guess."""
        self._state: dict[str, Any] = {
            "schema": 1, "step": step, "total_steps": total_steps, "loss": None, "samples_per_second": None,
            "tokens_per_second": None, "seconds_left": None, "phase": "starting",
        }  # fmt: skip
        self.earlier_seconds = 0.0
        """How long earlier attempts took, up to the checkpoint that this one resumed from."""
        self._write()

    @property
    def seconds(self) -> float:
        """How long the trial has been running, over all attempts."""
        return self.earlier_seconds + time.time() - self._started

    @property
    def seconds_left(self) -> float | None:
        return self._state["seconds_left"]

    @property
    def total_steps(self) -> int:
        """0 while nobody knows."""
        return self._state["total_steps"]

    def train_from(self, step: int, total_steps: int) -> None:
        self._trained_from = time.time(), step, self.share or 0.0
        self._state |= {"step": step, "total_steps": total_steps if self.share is None else 0, "phase": "training"}
        self._write()

    def at_step(self, step: int) -> None:
        self._state["step"] = step
        if self._trained_from is not None:
            start, first, share = self._trained_from
            per_step = (time.time() - start) / max(step - first, 1)
            if self.share is not None and self.share > share:
                left = (1 - self.share) * (step - first) / (self.share - share)
                self._state["total_steps"] = step + math.ceil(left - 1e-6)
            self._state["seconds_left"] = round(per_step * (self._state["total_steps"] - step), 1)
        if time.time() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def update(self, **values: float) -> None:
        """New values of `loss`, `samples_per_second` and the like; other keys are not for this file."""
        self._state |= {key: value for key, value in values.items() if key in self._state}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Says so in the file while the block runs."""
        before, self._state["phase"] = self._state["phase"], name
        self._write()
        yield
        self._state["phase"] = before
        self._write()

    def end(self, phase: str) -> None:
        self._state["phase"] = phase
        self._write()

    def _write(self) -> None:
        self._written = time.time()
        if self._path is not None:
            write_json(self._path, self._state | {"time": self._written})
