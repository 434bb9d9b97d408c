"""Hugging Face's Trainer, with complete checkpoints and figures of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from neobert.errors import RunError
from neobert.training import checkpoints, deepspeed
from neobert.training.checksums import is_share
from neobert.training.clipping import can_clip_in_step, clip_in_step
from neobert.training.exchange import gather
from neobert.training.progress import Meter, Progress


class Trainer(transformers.Trainer):
    """What all trainings share: checkpoints that are there completely or not at all, and how far and fast it goes."""

    control: Any
    is_deepspeed_enabled: bool

    def __init__(self, *, progress: Progress, keep_checkpoints: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.remove_callback(transformers.PrinterCallback)
        self.meter = Meter()
        self.progress = progress
        self._keep = keep_checkpoints

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(self.with_figures(logs) if "loss" in logs else logs, start_time)

    def with_figures(self, logs: dict[str, float]) -> dict[str, float]:
        """Add rates and the like to the training loss; called in all processes."""
        return logs | self.meter.read(self.accelerator)

    def load_weights(self, file: Path) -> None:
        """Puts the weights of a checkpoint into the model, wherever its shards may be.

        Of weights that are one matrix under several names, as BART's embeddings are, the file holds one. Raises
        `RunError` where others are missing or left over.
        """
        weights = load_file(file)
        with deepspeed.gathered(self.model):
            missing, unexpected = self.model.load_state_dict(weights, strict=False)
            places = self.model.state_dict(keep_vars=True)
        loaded = {id(places[name]) for name in weights.keys() & places.keys()}
        faults = [*(name for name in missing if id(places[name]) not in loaded), *unexpected]
        if faults:
            raise RunError(
                f"{file} does not hold the weights of this model: {', '.join(sorted(faults)[:3])}, ... differ"
            )

    def write_model(self, directory: Path) -> None:
        """Puts the model and its tokenizer there, all of it or nothing; called in all processes."""
        aside = checkpoints.staging(Path(self.args.output_dir)) / directory.name
        try:
            if not (self.is_deepspeed_enabled and self.model_wrapped is self.model):
                self.save_model(str(aside))
            elif self.args.should_save:  # DeepSpeed has no weights yet, because nothing was left to train
                self.model.to(torch.bfloat16 if self.args.bf16 else torch.float32)  # as after a training by DeepSpeed
                self._save(str(aside))
            if self.args.should_save:
                checkpoints.put_model_in_place(aside, directory)
        except Exception as error:  # as below
            message = _cannot_save("the model", directory, error)
            checkpoints.clear_partial(Path(self.args.output_dir))
            raise RunError(message) from error

    def save_also(self, directory: Path) -> None:
        """What else belongs into a checkpoint; called in all processes."""

    def _clip_grad_norm(self, model: Any) -> Any:
        """Trainer's own goes over all gradients once more, as versions do that have not this name for it."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's
        if self.is_deepspeed_enabled or self.accelerator.scaler is not None or not can_clip_in_step(optimizer):
            return super()._clip_grad_norm(model)
        return clip_in_step(optimizer, model.parameters(), self.args.max_grad_norm)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Raises `RunError` for moments of other weights: a fused optimizer writes beyond those that are too small."""
        super()._load_optimizer_and_scheduler(checkpoint)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's
        if checkpoint is not None and not self.is_deepspeed_enabled and not _moments_fit(optimizer):
            raise RunError(
                f"the optimizer's state in {checkpoint} is that of another model: a library or a file of the model has "
                "changed. Start with those of before, or remove the checkpoints to begin anew"
            )

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
                self.save_also(written)
                if self.args.should_save:
                    self._correct_best(directory, written)
                seen, sealed = self._seal(written)
                if self.args.should_save:
                    checkpoints.complete(written, directory, seen, sealed)
            except Exception as error:  # safetensors and torch.save have their own classes for a full disk
                message = _cannot_save(f"the checkpoint of step {self.state.global_step}", directory, error)
                checkpoints.clear_partial(directory)  # others may need the room
                raise RunError(message) from error
            if self.args.should_save:
                newest, best = self.state.global_step, self.state.best_global_step
                checkpoints.keep_newest(directory, self._keep, newest, best)
            self.accelerator.wait_for_everyone()

    def _seal(self, written: Path) -> tuple[set[str], dict[str, str]]:
        """The files of all processes, each of which has sealed its own, and their checksums."""
        seen = set().union(*gather(sorted(checkpoints.inventory(written))))  # waits for all, too
        mine = [name for name in seen if is_share(name, self.args.process_index, self.args.world_size)]
        checkpoints.wait_for(written, mine)
        sealed: dict[str, str] = {}
        for part in gather(checkpoints.seal(written, mine)):
            sealed |= part
        return seen, sealed

    def _correct_best(self, directory: Path, written: Path) -> None:
        """Notes the place of the best checkpoint as it will be, not aside."""
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(directory / f"checkpoint-{self.state.best_global_step}")
            self.state.save_to_json(str(written / "trainer_state.json"))


def _moments_fit(optimizer: Any) -> bool:
    states = ((weight, value) for weight, state in optimizer.state.items() for value in state.values())
    return all(value.shape == weight.shape for weight, value in states if torch.is_tensor(value) and value.dim())


def _cannot_save(what: str, directory: Path, error: Exception) -> str:
    free = shutil.disk_usage(directory if directory.exists() else directory.parent).free / 1e6
    # torch.save says "unexpected pos 56192 vs 56080" of a full disk.
    reason = str(error) if free >= 1 else "no space left on device"
    return (
        f"{what} cannot be written to {directory}: {reason} ({free:.0f} MB are free there). "
        "Earlier checkpoints are untouched; the same command resumes."
    )


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Draws nothing from the generators that the training goes on with (a DataLoader draws its seed from them)."""
    with torch.random.fork_rng(devices=[]):
        yield
