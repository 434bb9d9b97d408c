"""Live progress: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import math
import sys
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerState, TrainingArguments

from neobert.training.metrics import DISTINCT
from neobert.training.progress import Progress

PARTS = ("data", "forward", "backward", "communication", "optimizer")


class Console(TrainerCallback):
    """Tells of the training on standard output, in the main process.

    `score` is the name of the metric that evaluations are judged by: the same in every line.
    """

    def __init__(self, progress: Progress, score: str = "") -> None:
        self._progress = progress
        self._score = score
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if sys.stdout.isatty():
            self._bar = tqdm(
                total=self._progress.total_steps or None, initial=state.global_step, unit="step", file=sys.stdout,
                dynamic_ncols=True,
            )  # fmt: skip

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.total = self._progress.total_steps
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "samples_per_second" not in logs:
            return
        loss = f"loss {logs['loss']:.4f}" if "loss" in logs else "no loss"
        speed = f"{logs['samples_per_second']:.0f} examples/s, {logs['tokens_per_second']:,.0f} tokens/s{_use(logs)}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{loss}, {speed}")
        else:
            self._say(f"step {state.global_step}/{self._progress.total_steps} ({state.epoch:.2f} epochs): "
                      f"{loss}, {speed}{_shares(logs)}{self._left()}")  # fmt: skip

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: Any, metrics: dict[str, float], **_: Any
    ) -> None:
        shown = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
        score = shown.pop("score", None)
        of_class = [name for name in shown if name.startswith(("f1_", DISTINCT)) or name == self._score]
        told = [f"{name} {value:.4f}" for name, value in shown.items() if name not in of_class]
        if score is not None:
            told.insert(0, f"{self._score} {score:.4f}{_best(args, state, metrics)}")
        self._say(f"evaluation at step {state.global_step}: {', '.join(told)}")

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def _left(self) -> str:
        seconds = self._progress.seconds_left
        return "" if seconds is None else f", {tqdm.format_interval(seconds)} left"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)


def _use(logs: dict[str, float]) -> str:
    """Of the device's arithmetic and memory, where it is known."""
    use = f", MFU {logs['mfu']:.1%}" if "mfu" in logs else ""
    return use + (f", {logs['peak_memory'] / 1e9:.1f} GB" if "peak_memory" in logs else "")


def _shares(logs: dict[str, float]) -> str:
    """Where the time went: `data 1% forward 33% ...`; averaging gradients is part of the backward pass."""
    parts = {part: logs[f"seconds_{part}"] for part in PARTS if f"seconds_{part}" in logs}
    whole = sum(seconds for part, seconds in parts.items() if part != "communication")
    return f", {' '.join(f'{part} {seconds / whole:.0%}' for part, seconds in parts.items())}" if whole else ""


def _best(args: TrainingArguments, state: TrainerState, metrics: dict[str, float]) -> str:
    value = metrics.get(f"eval_{args.metric_for_best_model}", math.nan)
    best = state.best_metric
    if math.isnan(value):
        return ""
    if best is None or (value > best if args.greater_is_better else value < best):
        return " (best so far)"
    return f" (best: {best:.4f} at step {state.best_global_step})"
