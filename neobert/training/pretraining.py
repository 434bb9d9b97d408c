"""The training on masked words: an exact loss over all processes, and a place in the data that checkpoints keep."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from neobert.config import PretrainConfig
from neobert.data.text.stream import Batches, NoText, Place, Reached, Row, Windows
from neobert.data.text.training import TrainingData, no_text
from neobert.errors import RunError
from neobert.training import metering
from neobert.training.exchange import gather
from neobert.training.files import read_json, write_json
from neobert.training.measured import MeasuredSteps
from neobert.training.optimizers import build_optimizer, gradient_size
from neobert.training.schedules import Schedule, scheduler
from neobert.training.trainer import Trainer, same_random_numbers

log = logging.getLogger(__name__)

PLACE = "place.json"
"""In a checkpoint: where the training stands in its data, how many tokens it has seen, and how large gradients were."""

USUAL = 100
"""A spike of the gradient is told by the median of so many steps before it."""

DIVERGED = (
    "the training has diverged. The last checkpoint is from before; a lower optimizer.lr, a longer warm-up or clipping "
    "may help."
)


class PretrainTrainer(Trainer):
    """`held_out` are the rows of this process that are never trained on."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        config: PretrainConfig,
        windows: Windows,
        place: Place,
        tokens: int,
        data: TrainingData,
        schedule: Schedule,
        max_tokens: int | None,
        held_out: list[Row],
        **kwargs: Any,
    ):
        super().__init__(eval_dataset=held_out, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True  # by the masked tokens of the whole step
        self._config = config
        self._windows = windows
        self.place = place
        self.tokens = tokens
        """Real tokens that all processes together have seen."""
        self._data = data
        self._schedule = schedule
        self.max_tokens = max_tokens
        self._tell_share()
        self._begun = 0
        """The step whose batches were fetched last; `_tokens_ahead` are those of all processes in it."""
        self._tokens_begun = tokens
        rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self._tokens_ahead = rows * (config.datacollator.max_tokens or config.dataset.max_seq_length)
        self._held_out = held_out
        self._sizes: deque[float] = deque(maxlen=USUAL)
        self._skipped = 0
        self._skip = False
        self._losses: list[Tensor] = []
        """Of the micro-batches of this step, with DeepSpeed."""
        self._hosts: Any = None
        self._batches: Any = None
        self._reached: dict[int, Reached] = {}
        self._steps = 0
        """Since the last figures."""
        self._measured = MeasuredSteps(self.args.device, self.args.gradient_accumulation_steps)
        self._watch = metering.Stopwatch(self.args.device)
        self._counts = torch.zeros(3, dtype=torch.float64)  # tokens, squared lengths, masked tokens: for MFU
        self._peak = self._find_peak(config.trainer.peak_tflops)

    # -- data -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        self._batches = Batches(
            self._windows, self.place, self.args.process_index, self.args.world_size,
            self._config.dataset.num_workers, self.args.per_device_train_batch_size, self._data.collate,
        )  # fmt: skip
        return self._batches

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step, and how many tokens are masked in those of all processes.

        Raises `ConfigError` when there is no text.
        """
        batches, (masked, tokens, rows, *counts) = self._fetch(epoch_iterator, num_batches)
        for _ in range(self._batches.behind + 1):
            if rows:
                break
            self._batches.next_epoch()  # no process has any left of this one
            batches, (masked, tokens, rows, *counts) = self._fetch(epoch_iterator, num_batches)
        if not rows:
            raise no_text(self._config.dataset)
        self._measured.begin(masked, tokens, *counts)
        self._tokens_ahead = tokens
        self._begun, self._tokens_begun = self.state.global_step + 1, self.tokens + tokens
        return batches, max(masked, 1)

    def _fetch(self, epoch_iterator: Any, count: int) -> tuple[list, list[int]]:
        """Micro-batches of this process, and how many masked tokens, tokens and rows those of all processes have.

        Behind these, how many micro-batches have rows, and how many of them no masked token.
        """
        with self._watch.time("data"):
            try:
                batches = [next(epoch_iterator) for _ in range(count)]
            except NoText:
                raise no_text(self._config.dataset) from None
        some = [batch for batch in batches if batch["rows"]]  # the others are there for the processes to keep step
        each = [int((batch["labels"] >= 0).sum()) for batch in some]
        masked = sum(each)
        tokens, rows = sum(map(_real_tokens, some)), sum(batch["rows"] for batch in some)
        self.meter.add(rows, tokens)
        self._counts += torch.tensor([tokens, sum(map(_squares, some)), masked])
        return batches, self._over_processes(masked, tokens, rows, len(each), each.count(0))

    def _over_processes(self, *numbers: int) -> list[int]:
        """Their sums, by way of the hosts: no GPU is waited for."""
        if self.args.world_size == 1:
            return list(numbers)
        if self._hosts is None:
            self._hosts = distributed.new_group(backend="gloo")
        sums = torch.tensor(numbers)
        distributed.all_reduce(sums, group=self._hosts)
        return sums.tolist()

    def _step_is_done(self) -> None:
        self.place = Place(self.place.lanes, {**self.place.reached, **self._reached})
        self.tokens += self._tokens_ahead
        self._steps += 1
        self._reached = {}

    def _tell_share(self) -> None:
        if self.max_tokens is not None:
            self.progress.share = min(self.tokens / self.max_tokens, 1.0)

    # -- steps ------------------------------------------------------------------------------------------------

    def _done_with_the_next(self) -> float:
        """The share of the training that will be done with the step after the one that has begun.

        In tokens that is a guess: it will have as many as this one.
        """
        if self.max_tokens is not None:
            return (self._tokens_begun + self._tokens_ahead) / self.max_tokens
        return (self._begun + 1) / self.args.max_steps

    def create_optimizer(self, model: Any = None) -> Optimizer:
        if self.optimizer is None:
            self.optimizer = build_optimizer(self._config.optimizer, self.model)
            self.plain_optimizer = self.optimizer  # around which others will be put
            self.optimizer_settings = [
                {name: value for name, value in group.items() if name not in ("params", "lr")}
                for group in self.optimizer.param_groups
            ]
            step = self.optimizer.step

            def unless_skipped(_: Optimizer, *arguments: Any, **options: Any) -> Any:
                if self._skip:
                    return None
                with self._watch.time("optimizer"):
                    return step(*arguments, **options)

            self.optimizer.step = MethodType(unless_skipped, self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = scheduler(optimizer or self.optimizer, self._schedule, self._done_with_the_next)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        reached = inputs.pop("place")
        del inputs["rows"]
        start = self._watch.mark()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._watch.add("backward", self._forward_end, self._watch.mark())
        self._watch.add("forward", start, self._forward_end)
        self._reached |= reached
        if self.accelerator.sync_gradients:
            self._step_is_done()
            self._tell_share()
        self._measured.add(loss)
        if self.is_deepspeed_enabled:
            self._losses.append(loss)
            return loss
        # As NaN it would stay in Trainer's sum of losses for good. Whether the step is taken, the gradient tells.
        return torch.where(loss.isfinite(), loss, 0.0)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum over this batch's masked tokens, divided by those of the whole step in all processes.

        Times the number of processes, since gradients are averaged over them.
        """
        outputs = model(**inputs)
        self._forward_end = self._watch.mark()
        loss = outputs.loss_sum * (self.args.world_size / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float | None:
        """Also decides whether this step is taken: with a gradient that is no number, or a spike, it is not.

        DeepSpeed may have taken it by then, so with DeepSpeed the training ends instead.
        """
        found = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.is_deepspeed_enabled:
            self._end_if_lost(found)
            return found
        size = gradient_size(self.model.parameters()) if found is None else float(found)
        usual = statistics.median(self._sizes) if len(self._sizes) == USUAL else math.inf
        spike = self._config.trainer.spike_factor
        self._skip = not math.isfinite(size) or (spike is not None and size > spike * usual)
        if not self._skip:
            self._sizes.append(size)
            return size
        self._skipped += 1
        told = f"{size:g} (usual: {usual:g})" if math.isfinite(usual) else f"{size:g}"
        limit = self._config.trainer.max_skipped_steps
        if self._skipped > limit:
            raise RunError(
                f"step {self.state.global_step + 1} has a gradient of {told}, and at most {limit} such steps are "
                f"skipped: {DIVERGED}"
            )
        log.warning("step %d has a gradient of %s and is skipped; %d of at most %d", self.state.global_step + 1, told,
                    self._skipped, limit)  # fmt: skip
        return size

    def _end_if_lost(self, size: float | None) -> None:
        """Of a gradient that is no number, DeepSpeed says that its size is -1, or nothing, or that it overflows."""
        lost = (size is not None and not size >= 0) or self.accelerator.optimizer_step_was_skipped
        lost |= not all(map(torch.isfinite, self._losses))
        self._losses = []
        if any(self._over_processes(int(lost))):
            raise RunError(f"step {self.state.global_step + 1} has a loss or a gradient that is no number, and with "
                           f"DeepSpeed none is skipped: {DIVERGED}")  # fmt: skip

    # -- figures ----------------------------------------------------------------------------------------------

    def _find_peak(self, said: float | Literal["measure"] | None) -> float | None:
        """What MFU is a share of; measured in the main process alone, which is the one that tells of it."""
        device = self.args.device
        if said != "measure":
            return metering.peak_flops(device, said)
        if not self.args.should_save:
            return None
        kind = torch.bfloat16 if self.args.bf16 else torch.float32
        peak = metering.measured_peak(device, kind)
        log.info("peak of the device: %.4g TFLOPS, as measured in %s", peak / 1e12, str(kind).removeprefix("torch."))
        return peak

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        known = self._data.tokens
        self.state.epoch = self.tokens / known if known else self._windows.epoch(self.place)
        super().log(logs, start_time)

    def with_figures(self, logs: dict[str, float]) -> dict[str, float]:
        """The loss, rates, where the time went (in this process), memory, and MFU."""
        logs = self._measured.of_measured(logs, self._steps, self.accelerator)
        if self.args.process_index == 0:
            self._measured.warn(self._config.datacollator.mlm_probability)
        spent = self._watch.read()
        if self.is_deepspeed_enabled:  # it updates the weights at the end of its backward pass
            spent["backward"] -= spent.get("optimizer", 0.0)
        communication = metering.communication(self.model_wrapped)
        if communication is not None:
            spent["communication"] = communication * self._steps
        self._steps = 0
        found = super().with_figures(logs) | {f"seconds_{part}": seconds for part, seconds in spent.items()}
        found |= {"tokens": self.tokens, "peak_memory": metering.peak_memory(self.args.device)}
        if self._skipped:
            found["skipped_steps"] = self._skipped
        if self._peak:
            tokens, squares, masked = self._counts.tolist()
            work = metering.flops(self.model.config, tokens, squares, masked)
            found["mfu"] = work / self.meter.seconds / self._peak
        self._counts.zero_()
        return found

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and accuracy over the masked tokens of the held-out text."""
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        size = self.args.per_device_eval_batch_size
        with self.progress.phase("evaluating"), self.meter.paused(), same_random_numbers(), torch.no_grad():
            model.eval()
            for start in range(0, len(self._held_out), size):
                inputs = self._prepare_inputs(self._data.collate(self._held_out[start : start + size]))
                with self.compute_loss_context_manager():
                    found = model(**inputs)
                totals += torch.stack([found.loss_sum, found.correct, found.masked]).to(totals)
            model.train()
        loss, correct, masked = self.accelerator.reduce(totals, reduction="sum").tolist()
        metrics = {"eval_loss": loss / masked, "eval_masked_accuracy": correct / masked}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # -- checkpoints ------------------------------------------------------------------------------------------

    def save_also(self, directory: Path) -> None:
        reached: dict[int, Reached] = {}
        for part in gather([[lane, *place] for lane, place in self.place.reached.items()]):
            for lane, *place in part:  # moved on by one process alone; what others know of it is older
                reached[lane] = max(Reached(*place), reached.get(lane, Reached(*place)))
        self.place = Place(self.place.lanes, reached)
        if self.args.should_save:
            judged = {"gradient_sizes": list(self._sizes), "skipped_steps": self._skipped}
            known = {"schema": 1, "tokens": self.tokens, "source": self._data.source, "versions": self._data.versions}
            known |= judged
            write_json(directory / PLACE, known | self.place.to_json())

    def restore_judgement(self, checkpoint: Path, own: bool) -> None:
        """By what gradients are judged, as it was when the checkpoint was saved; to be called in all processes.

        Steps that another trial has skipped are not counted: that one may have ended for them.
        """
        found = read_json(checkpoint / PLACE)
        self._sizes.extend(found.get("gradient_sizes", []))  # older checkpoints have neither
        self._skipped = found.get("skipped_steps", 0) if own else 0


def _real_tokens(batch: dict[str, Any]) -> int:
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def _squares(batch: dict[str, Any]) -> int:
    lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else batch["cu_seqlens"].diff()
    return int(lengths.long().square().sum())
