"""Where in a directory the newest checkpoint is, and in which layout.

These layouts are known, of this project and of those that NeoBERT was trained with before (chandar-lab/NeoBERT, and
pszemraj/NeoBERT from v0.0.2 on):

    model/{config.json, model.safetensors}                          a trial of `neobert pretrain`, when it is done
    checkpoints/checkpoint-STEP/{config.json, model.safetensors}    any trial of ours
    {config.json, model.safetensors}                                a Hugging Face model
    model_checkpoints/STEP/{state_dict.pt, config.yaml}             v0.0.2 to v0.0.8; chandar-lab with hydra/
    model_checkpoints/STEP/{model.safetensors, config.yaml}         v0.1.0 and v0.1.1
    checkpoints/STEP/{model.safetensors, config.yaml}               from v0.1.2 on, later with checkpoint_complete.json
    {latest, STEP/*_{model,optim}_states.pt}                        DeepSpeed's save_checkpoint
    STEP/pytorch_model/*_{model,optim}_states.pt                    Accelerate's save_state with DeepSpeed
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.training import checkpoints

log = logging.getLogger(__name__)

Layout = Literal["Hugging Face", "safetensors", "state_dict.pt", "DeepSpeed"]

_HUGGING_FACE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_CONFIGURATIONS = ("config.yaml", ".hydra/config.yaml", "hydra/.hydra/config.yaml")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
_COMPLETE = "checkpoint_complete.json"


@dataclass(frozen=True)
class Found:
    """A checkpoint: its directory, and what lies around it."""

    directory: Path
    layout: Layout
    config: Path
    """config.json of a Hugging Face model, config.yaml of the others."""
    tokenizer: Path | None
    """The directory of its tokenizer, if one lies with it."""


def find(path: Path) -> Found:
    """The checkpoint in a directory, or the newest one below it; raises `UnusableCheckpoint` if there is none."""
    if not path.is_dir():
        kind = "is a file; name the directory that it lies in" if path.exists() else "does not exist"
        raise UnusableCheckpoint(f"{path} {kind}")
    for directory in _places(path):
        layout = layout_of(directory)
        if layout:
            return Found(directory, layout, _config_of(directory, layout), _tokenizer_of(directory))
    known = "model.safetensors, state_dict.pt, or DeepSpeed's *_model_states.pt"
    raise UnusableCheckpoint(f"{path} holds no checkpoint: no {known} in it, in model/ or below checkpoints/")


def layout_of(directory: Path) -> Layout | None:
    """By its files alone; None for a directory without weights."""
    if (directory / "config.json").is_file() and any((directory / name).is_file() for name in _HUGGING_FACE):
        return "Hugging Face"
    if (directory / "model.safetensors").is_file():
        return "safetensors"
    if (directory / "state_dict.pt").is_file():
        return "state_dict.pt"
    return "DeepSpeed" if any(directory.glob("*_model_states.pt")) else None


def _places(path: Path) -> Iterator[Path]:
    """Where to look, the best first."""
    yield path
    yield path / "model"
    yield from _of_trial(path / "checkpoints")
    if path.name == "checkpoints":
        yield from _of_trial(path)
    for root in (path, path / "model_checkpoints", path / "checkpoints"):
        tag = root / "latest"  # DeepSpeed's; elsewhere a directory, or a link to one
        if tag.is_file():
            yield root / tag.read_text(encoding="utf-8").strip()
        for step in _steps(root):
            fault = _fault(step)
            if fault:
                log.warning("skipping the checkpoint %s: %s", step, fault)
                continue
            yield from (step, step / "pytorch_model")
        yield root / "pytorch_model"


def _of_trial(directory: Path) -> Iterator[Path]:
    """The best checkpoint of a trial of ours, if it knows one, and the newest complete one."""
    newest = checkpoints.newest_complete(directory)
    if newest is None:
        return
    best = newest.state.get("best_global_step")
    if best is not None and checkpoints.find_fault(directory / f"checkpoint-{best}") is None:
        yield directory / f"checkpoint-{best}"
    yield newest.path


def _steps(root: Path) -> list[Path]:
    """The directories that are named by a number, the largest first."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if path.name.isdecimal()), key=lambda path: -int(path.name))


def _fault(step: Path) -> str | None:
    """Which file of a completion marker's inventory is not as it says; older checkpoints have no marker."""
    marker = step / _COMPLETE
    if not marker.is_file():
        return None
    try:
        listed = [
            (entry["path"], entry["size"]) for entry in json.loads(marker.read_text(encoding="utf-8"))["artifacts"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        return f"its {_COMPLETE} cannot be read ({error!r})"
    for name, size in listed:
        file = step / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{name} is missing, or has not the {size} bytes that its {_COMPLETE} says"
    return None


def _config_of(directory: Path, layout: Layout) -> Path:
    if layout == "Hugging Face":
        return directory / "config.json"
    above = [directory, *list(directory.parents)[:3]]
    for parent in above:
        for name in _CONFIGURATIONS:
            if (parent / name).is_file():
                return parent / name
    raise UnusableCheckpoint(
        f"{directory} has weights, but neither it nor the three directories above hold a config.yaml (or "
        ".hydra/config.yaml), which tells the number of heads. Put the one of that training beside the weights"
    )


def _tokenizer_of(directory: Path) -> Path | None:
    for parent in (directory, *list(directory.parents)[:2]):
        for place in (parent, parent / "tokenizer"):
            if any((place / name).is_file() for name in _TOKENIZERS):
                return place
    return None
