"""The training of a classifier, with an exact loss and evaluations that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers import TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from neobert.data.glue_tasks import GlueTask
from neobert.training.embeddings import save_rows_in_use
from neobert.training.graphs import StepGraphs
from neobert.training.metrics import class_counts
from neobert.training.trainer import Trainer, same_random_numbers

Array = np.ndarray[Any, np.dtype[Any]]


def mean_loss(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | float, class_weights: Tensor | None = None
) -> Tensor:
    """The loss summed over these examples, divided by the examples of the whole global batch.

    Where classes have weights, both sums are of weighted examples, as in PyTorch's weighted mean.

    The models' own loss is the mean of each piece of the batch, which Trainer then scales as if it were such a sum: the
    gradient comes out multiplied by the number of processes and of accumulated pieces. And with pieces of unequal size
    (the last of an epoch), a mean of means weighs examples unequally.
    """
    logits = outputs["logits"].float()
    if logits.shape[-1] == 1:
        total = mse_loss(logits.squeeze(-1), labels.float(), reduction="sum")
    else:
        total = cross_entropy(logits, labels, weight=class_weights, reduction="sum")
    return total / num_items_in_batch


def balanced_weights(task: GlueTask, labels: Sequence[float]) -> Tensor:
    """(classes,): n / (classes * examples of the class), as scikit-learn's `class_weight="balanced"` has it.

    Raises `ValueError` for a regression, and for a class without an example.
    """
    if task.is_regression:
        raise ValueError("is for classifications, and the labels are numbers (a regression)")
    counts = class_counts(task, labels)
    absent = [label for label, count in zip(task.labels, counts, strict=True) if not count]
    if absent:
        some = ", ".join(absent[:5]) + (", ..." if absent[5:] else "")
        raise ValueError(f"the training set has no example of {some}, which could have any weight: leave "
                         "class_weights out, or these classes out of data.labels")  # fmt: skip
    return torch.tensor(len(labels) / (len(counts) * counts), dtype=torch.float32)


class ClassifierTrainer(Trainer):
    """`eval_dataset` holds all dev sets, by suffix; `metrics(outputs, labels)` judges one, `score(metrics)` all.

    `class_weights` (classes) say how much an example of each counts in the training loss.
    """

    def __init__(
        self,
        *,
        metrics: Callable[[Array, Array], dict[str, float]],
        score: Callable[[dict[str, float]], float],
        class_weights: Tensor | None = None,
        args: TrainingArguments,
        **kwargs: Any,
    ):
        on_device = None if class_weights is None else class_weights.to(args.device)
        self.loss = partial(mean_loss, class_weights=on_device)
        super().__init__(args=args, compute_loss_func=self.loss, **kwargs)
        self.model_accepts_loss_kwargs = False  # `mean_loss` alone needs num_items_in_batch, not the model
        self.graphs: StepGraphs | None = None
        self._metrics = metrics
        self._score = score
        self._class_weights = class_weights

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        tokens = inputs["tokens"]
        self.meter.add(len(inputs["attention_mask"]), tokens)
        if self.graphs is not None:
            if not model.training:
                model.train()
            loss = self.graphs.step(model, self._prepare_inputs(inputs), tokens, num_items_in_batch)
            if loss is not None:
                return loss
        return super().training_step(model, inputs, num_items_in_batch)

    def save_also(self, directory: Path) -> None:
        if self.args.should_save:
            save_rows_in_use(self.model, directory)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody reads them; Trainer would count all weights anew at each step, which takes as long as a small one."""
        return 0

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> Tensor | float | None:
        """All examples of the global batch, each as much as its class weighs.

        Trainer's own leaves out -100, which may well be a number to predict.
        """
        if not batch_samples:
            return None
        count = sum(self._weight(batch["labels"]) for batch in batch_samples)
        if self.args.world_size == 1:
            return count
        return self.accelerator.gather(torch.tensor(count, device=device)).sum()

    def _weight(self, labels: Tensor) -> float:
        """Of all these examples. Without weights for classes, that is how many they are."""
        return len(labels) if self._class_weights is None else self._class_weights[labels.cpu()].sum().item()

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device. With DeepSpeed, Trainer also rounds all floats to the model's precision: not the labels."""
        labels = {name: inputs[name] for name in self.label_names if name in inputs}
        prepared = super()._prepare_inputs({name: value for name, value in inputs.items() if name != "tokens"})
        return prepared | {name: label.to(self.args.device) for name, label in labels.items()}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics of all dev sets (`eval_accuracy`, `eval_accuracy_mm`) and their `eval_score`."""
        metrics: dict[str, float] = {}
        with self.progress.phase("evaluating"), self.meter.paused(), same_random_numbers():
            for suffix, dataset in self.eval_dataset.items():
                output = self.evaluation_loop(self.get_eval_dataloader(dataset), "Evaluation")
                found = self.judge(_logits(output), output.label_ids)
                metrics |= {f"eval_{name}{suffix}": value for name, value in found.items()}
        plain = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        metrics["eval_score"] = self._score(plain)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def judge(self, outputs: Array, labels: Array) -> dict[str, float]:
        """The metrics and the loss, in which all classes weigh the same, of outputs for examples with labels.

        Trainer's own loss is a mean of batch means, which changes with the number of processes.
        """
        loss = mean_loss({"logits": torch.from_numpy(outputs)}, torch.from_numpy(labels), len(labels))
        return self._metrics(outputs, labels) | {"loss": loss.item()}

    def outputs(self, dataset: Any) -> Array:
        """What the model says of each example, in order: (examples, classes)."""
        if self.is_deepspeed_enabled and self.deepspeed is None:
            # All training was done by an earlier attempt, so DeepSpeed has no engine here, and need not make one.
            self.is_deepspeed_enabled = False
            self.model.to(self.args.hf_deepspeed_config.dtype())
        return _logits(self.evaluation_loop(self.get_test_dataloader(dataset), "Prediction"))


def _logits(output: EvalLoopOutput) -> Array:
    """Some models give more than logits; those come first."""
    return output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
