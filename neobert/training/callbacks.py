"""What happens around the steps: reports, early stopping, stopping when asked."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState

from neobert.errors import RunError
from neobert.training.checkpoints import Checkpoint
from neobert.training.files import TrialFiles, append_json_line, write_json
from neobert.training.preemption import Preemption
from neobert.training.progress import Progress


class Restored(TrainerCallback, ExportableState):
    """A callback whose attributes live on in checkpoints.

    Hugging Face's own way of restoring puts `TrainerControl` back as well, and with it the order to stop that was in
    force when the checkpoint was saved.
    """

    remembered: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {name: getattr(self, name) for name in self.remembered}}

    def restore(self, state: TrainerState) -> None:
        for name, value in state.stateful_callbacks[type(self).__name__]["attributes"].items():
            setattr(self, name, value)


class Report(Restored):
    """Writes progress.json and metrics.jsonl, in the main process."""

    remembered = ("earlier_seconds",)

    def __init__(self, progress: Progress, metrics: Path):
        self.progress = progress
        self.metrics = metrics

    @property
    def earlier_seconds(self) -> float:
        """What a checkpoint remembers: by the time it is read, all time until it was written is earlier."""
        return self.progress.seconds

    @earlier_seconds.setter
    def earlier_seconds(self, seconds: float) -> None:
        self.progress.earlier_seconds = seconds

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.progress.train_from(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.progress.at_step(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "train_runtime" in logs:
            return  # Trainer's closing summary, which mixes this attempt's time with all attempts' steps
        self.progress.update(**logs)
        append_json_line(self.metrics, {"step": state.global_step, "time": time.time(), **logs})


class StepResults(TrainerCallback):
    """Leaves a file for each evaluation, in the main process."""

    def __init__(self, paths: TrialFiles):
        self._paths = paths

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        step = state.global_step
        write_json(self._paths.step_result(step), {"step": step, "epoch": state.epoch, **metrics})


class EarlyStopping(Restored):
    """Stops after `patience` evaluations in a row without improvement by more than `threshold`; never without one.

    The best value so far is Trainer's own: nothing at first, so that a score of zero or below counts as one, and never
    NaN, which is no improvement on anything. Its checkpoint keeps it, and keeps the count of this callback.
    """

    remembered = ("failures",)

    def __init__(self, patience: int | None, threshold: float):
        self.patience = patience
        self.threshold = threshold
        self.failures = 0

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.failures >= self.patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        value = metrics[f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"]
        gain = value if args.greater_is_better else -value
        if state.best_metric is not None and math.isfinite(state.best_metric):
            gain -= state.best_metric if args.greater_is_better else -state.best_metric
            improved = gain > self.threshold
        else:
            improved = math.isfinite(gain)
        self.failures = 0 if improved else self.failures + 1
        if self.exhausted:
            control.should_training_stop = True


class StopWhenAsked(TrainerCallback):
    """Ends the training with a checkpoint once any rank got the signal; must come after Trainer's own callbacks."""

    def __init__(self, preemption: Preemption):
        self.preemption = preemption
        self.stopped = False
        self._asked = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._asked = self.preemption.agreed()
        # The end of an epoch evaluates and saves by itself, and on_epoch_end stops there. A checkpoint of just before
        # would resume in the next epoch, without the evaluation. (The last step of an epoch has a whole number.)
        epoch_ends = args.eval_strategy == "epoch" and (state.epoch.is_integer() or control.should_training_stop)
        if self._asked and not epoch_ends:
            control.should_log = control.should_save = True
            self._stop(state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.stopped:  # in the middle of the epoch: nothing is due that Trainer now thinks is
            control.should_evaluate = control.should_save = control.should_log = False
        elif self._asked:  # what all ranks know; the signal itself may have reached only some by now
            self._stop(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A signal during the evaluation just before, which may be long: this checkpoint will do."""
        if not self.stopped and self.preemption.agreed():
            self._stop(state, control)

    def _stop(self, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step < state.max_steps:
            control.should_training_stop = True
            self.stopped = True


class LogLast(TrainerCallback):
    """Logs the last step, too, whose loss is the result where nothing is evaluated; comes after Trainer's own."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


class StopOnNaN(TrainerCallback):
    """Ends a training that has diverged, instead of letting it use up its hours."""

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        for name, value in logs.items():
            if (name == "loss" or name.startswith("eval_loss")) and not math.isfinite(value):
                kind = "training" if name == "loss" else "evaluation"
                raise RunError(
                    f"the {kind} loss is {value} at step {state.global_step}: the training has diverged. "
                    "A lower optimizer.lr, longer scheduler.warmup_steps or mixed_precision: no may help."
                )


def tensorboard(directory: Path, resumed: Checkpoint | None) -> TrainerCallback:
    """Writes TensorBoard's event files; steps that a resumed run does again are shown once."""
    return TensorBoardCallback(SummaryWriter(directory, purge_step=resumed.step + 1 if resumed else None))
