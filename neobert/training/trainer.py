"""Hugging Face's Trainer, with an exact loss, complete checkpoints and evaluations that leave no trace."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers.trainer_utils import EvalLoopOutput

from neobert.errors import RunError
from neobert.training import checkpoints, deepspeed
from neobert.training.progress import Meter, Progress

Array = np.ndarray[Any, np.dtype[Any]]


def mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
    """The loss summed over these examples, divided by the examples of the whole global batch.

    The models' own loss is the mean of each piece of the batch, which Trainer then scales as if it were such a sum: the
    gradient comes out multiplied by the number of processes and of accumulated pieces. And with pieces of unequal size
    (the last of an epoch), a mean of means weighs examples unequally.
    """
    logits = outputs["logits"].float()
    if logits.shape[-1] == 1:
        total = mse_loss(logits.squeeze(-1), labels.float(), reduction="sum")
    else:
        total = cross_entropy(logits, labels, reduction="sum")
    return total / num_items_in_batch


class Trainer(transformers.Trainer):
    """`eval_dataset` holds all dev sets, by suffix; `metrics(outputs, labels)` judges one, `score(metrics)` all."""

    control: Any
    is_deepspeed_enabled: bool

    def __init__(
        self,
        *,
        metrics: Callable[[Array, Array], dict[str, float]],
        score: Callable[[dict[str, float]], float],
        progress: Progress,
        keep_checkpoints: int,
        **kwargs: Any,
    ):
        super().__init__(compute_loss_func=mean_loss, **kwargs)
        self.model_accepts_loss_kwargs = False  # `mean_loss` alone needs num_items_in_batch, not the model
        self.remove_callback(transformers.PrinterCallback)
        self.meter = Meter()
        self.progress = progress
        self._keep = keep_checkpoints
        self._metrics = metrics
        self._score = score

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        self.meter.add(inputs["attention_mask"])
        return super().training_step(model, inputs, num_items_in_batch)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device. With DeepSpeed, Trainer also rounds all floats to the model's precision: not the labels."""
        labels = {name: inputs[name] for name in self.label_names if name in inputs}
        prepared = super()._prepare_inputs(inputs)
        return prepared | {name: label.to(self.args.device) for name, label in labels.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.meter.read(self.accelerator)
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics of all dev sets (`eval_accuracy`, `eval_accuracy_mm`) and their `eval_score`."""
        metrics: dict[str, float] = {}
        with self.progress.phase("evaluating"), self.meter.paused(), _same_random_numbers():
            for suffix, dataset in self.eval_dataset.items():
                output = self.evaluation_loop(self.get_eval_dataloader(dataset), "Evaluation")
                logits, labels = _logits(output), output.label_ids
                # Trainer's own eval_loss is a mean of batch means, which changes with the number of processes.
                loss = mean_loss({"logits": torch.from_numpy(logits)}, torch.from_numpy(labels), len(labels))
                found = self._metrics(logits, labels) | {"loss": loss.item()}
                metrics |= {f"eval_{name}{suffix}": value for name, value in found.items()}
        plain = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        metrics["eval_score"] = self._score(plain)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def load_weights(self, file: Path) -> None:
        """Puts the weights of a checkpoint into the model, wherever its shards may be."""
        with deepspeed.gathered(self.model):
            self.model.load_state_dict(load_file(file))

    def outputs(self, dataset: Any) -> Array:
        """What the model says of each example, in order: (examples, classes)."""
        if self.is_deepspeed_enabled and self.deepspeed is None:
            # All training was done by an earlier attempt, so DeepSpeed has no engine here, and need not make one.
            self.is_deepspeed_enabled = False
            self.model.to(self.args.hf_deepspeed_config.dtype())
        return _logits(self.evaluation_loop(self.get_test_dataloader(dataset), "Prediction"))

    def _get_output_dir(self, trial: Any) -> str:
        """Where Trainer writes a checkpoint: aside, until it is complete."""
        return str(checkpoints.staging(Path(super()._get_output_dir(trial))))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves, marks the checkpoint complete, moves it into place, and only then deletes older ones."""
        directory = Path(self.args.output_dir)
        with self.progress.phase("saving"), self.meter.paused():
            if self.args.should_save:
                checkpoints.clear_partial(directory)
            self.accelerator.wait_for_everyone()
            try:
                super()._save_checkpoint(model, trial)
                written = checkpoints.staging(directory) / f"checkpoint-{self.state.global_step}"
                seen = gather_object(sorted(checkpoints.inventory(written)))  # waits for all, too
                if self.args.should_save:
                    self._correct_best(directory, written)
                    checkpoints.complete(written, directory, seen)
            except Exception as error:  # safetensors and torch.save have their own classes for a full disk
                message = _cannot_save(directory, self.state.global_step, error)
                checkpoints.clear_partial(directory)  # others may need the room
                raise RunError(message) from error
            if self.args.should_save:
                newest, best = self.state.global_step, self.state.best_global_step
                checkpoints.keep_newest(directory, self._keep, newest, best)
            self.accelerator.wait_for_everyone()

    def _correct_best(self, directory: Path, written: Path) -> None:
        """Notes the place of the best checkpoint as it will be, not aside."""
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(directory / f"checkpoint-{self.state.best_global_step}")
            self.state.save_to_json(str(written / "trainer_state.json"))


def _logits(output: EvalLoopOutput) -> Array:
    """Some models give more than logits; those come first."""
    return output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions


def _cannot_save(directory: Path, step: int, error: Exception) -> str:
    free = shutil.disk_usage(directory).free / 1e6
    # torch.save says "unexpected pos 56192 vs 56080" of a full disk.
    reason = str(error) if free >= 1 else "no space left on device"
    return (
        f"the checkpoint of step {step} cannot be written to {directory}: {reason} ({free:.0f} MB are free there). "
        "Earlier checkpoints are untouched; the same command resumes."
    )


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Draws nothing from the generators that the training goes on with (a DataLoader draws its seed from them)."""
    with torch.random.fork_rng(devices=[]):
        yield
