"""PyTorch's profiler over some steps of a training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerState

log = logging.getLogger(__name__)

FIRST = 10
"""So many steps are not looked at: they compile, allocate, and fill caches."""
ROWS = 25


class Profiling(TrainerCallback):
    """Writes steps-FROM-TO.json.gz, for https://ui.perfetto.dev, and steps-FROM-TO.txt, the costliest operations."""

    def __init__(self, steps: int, directory: Path):
        self._steps = steps
        self._directory = directory
        self._first = 0
        self._profile: profile | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._first = state.global_step + FIRST

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if state.global_step == self._first:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profile.start()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._profile is not None and state.global_step == self._first + self._steps:
            self._write(self._profile, state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._profile is not None:
            self._write(self._profile, state.global_step)

    def _write(self, found: profile, last: int) -> None:
        self._profile = None
        found.stop()
        self._directory.mkdir(exist_ok=True)
        name = self._directory / f"steps-{self._first + 1}-{last}"
        found.export_chrome_trace(f"{name}.json.gz")
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=60)
        Path(f"{name}.txt").write_text(table)
        log.info("profile of steps %d to %d: %s.txt, and .json.gz for https://ui.perfetto.dev", self._first + 1, last,
                 name)  # fmt: skip
