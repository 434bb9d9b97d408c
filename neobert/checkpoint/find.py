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
    STEP/{model.safetensors, pytorch_model.bin}                     Accelerate's save_state, alone or in accelerate/
    checkpoint-STEP/{config.json, latest, global_stepSTEP/}         Hugging Face's Trainer with DeepSpeed (ZeRO 3)

STEP is a number, or global_stepN where DeepSpeed chose the name. Any of these directories may be named itself. Weights
of any layout may be those of another encoder: config.json, in their directory or in one of the three above, says so.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neobert.checkpoint.damage import SENTENCEPIECE
from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.config.paths import why_incomplete, why_missing
from neobert.training import checkpoints
from neobert.training.ended import read_ending

log = logging.getLogger(__name__)

Layout = Literal["Hugging Face", "safetensors", "pytorch_model.bin", "state_dict.pt", "DeepSpeed"]

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_INSIDE = ("", "pytorch_model", "accelerate")
"""Where in the directory of a step its weights may lie."""
_CONFIGURATIONS = ("config.yaml", ".hydra/config.yaml", "hydra/.hydra/config.yaml", "config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", *SENTENCEPIECE)
_COMPLETE = "checkpoint_complete.json"
_STEP = re.compile(r"(?:checkpoint-|global_step)?(\d+)")
"""`checkpoint-` is Hugging Face's and ours, `global_step` DeepSpeed's own."""


@dataclass(frozen=True)
class Found:
    """A checkpoint: its directory, and what lies around it."""

    directory: Path
    layout: Layout
    config: Path
    """config.json of a Hugging Face model, config.yaml of a training."""
    tokenizer: Path | None
    """The directory of its tokenizer, if one lies with it."""


def find(path: Path, step: int | Literal["latest"] | None = None, config: Path | None = None) -> Found:
    """The checkpoint in a directory, or below it: that of a step, the newest one, or by default the best.

    The best is a finished model, then the checkpoint that a trial of ours knows as its best, then the newest. `config`
    is used where no configuration lies with the weights. Raises `UnusableCheckpoint` if there is none.
    """
    if not path.is_dir():
        kind = f"does not exist{why_missing(path)}"
        if path.exists():
            kind = "is a file; name the directory that it lies in"
        raise UnusableCheckpoint(f"{path} {kind}")
    if step == "latest":
        _check_last_was_kept(path)
    for directory in _places(path) if step is None else _of_step(path, step):
        layout = layout_of(directory)
        if layout:
            return Found(directory, layout, config or _config_of(directory, layout), _tokenizer_of(directory))
    if step is not None:
        which = "no complete checkpoint" if step == "latest" else f"no checkpoint of step {step}"
        there = sorted({number for root in _roots(path) for number, _ in _steps(root)})
        raise UnusableCheckpoint(f"{path} holds {which}; steps there: {', '.join(map(str, there)) or 'none'}")
    known = "model.safetensors, state_dict.pt, or DeepSpeed's *_model_states.pt"
    raise UnusableCheckpoint(
        f"{path} holds no checkpoint: no {known} in it, in model/ or below checkpoints/{why_incomplete(path)}"
    )


def layout_of(directory: Path) -> Layout | None:
    """By its files alone; None for a directory without weights."""
    weights = next((name for name in _WEIGHTS if (directory / name).is_file()), None)
    if weights:
        kind: Layout = "safetensors" if "safetensors" in weights else "pytorch_model.bin"
        return "Hugging Face" if (directory / "config.json").is_file() else kind
    if (directory / "state_dict.pt").is_file():
        return "state_dict.pt"
    return "DeepSpeed" if any(directory.glob("*_model_states.pt")) else None


def is_neobert(found: Found) -> bool:
    """Return True for the weights of a NeoBERT: those of other encoders come with a config.json that names them."""
    settings = _mapping(found.config) if found.config.suffix == ".json" else {}
    if found.layout == "Hugging Face":
        return settings.get("model_type") == "neobert"  # the library explains what is wrong with another one
    return settings.get("model_type", "neobert") == "neobert"


def _roots(path: Path) -> tuple[Path, ...]:
    """Where the directories of steps may lie."""
    return path, path / "model_checkpoints", path / "checkpoints"


def _places(path: Path) -> Iterator[Path]:
    """Where to look, the best first."""
    for inside in (*_INSIDE, "model"):
        yield whole(path / inside)
    for directory in (path / "checkpoints", path):
        yield from _of_trial(directory)
    yield from _of_step(path, "latest")


def _of_step(path: Path, step: int | Literal["latest"]) -> Iterator[Path]:
    for root in _roots(path):
        tag = root / "latest"  # DeepSpeed's; elsewhere a directory, or a link to one
        if step == "latest" and tag.is_file():
            yield _tagged(root, tag)
        for number, directory in _steps(root):
            if step not in ("latest", number):
                continue
            fault = _fault(directory)
            if fault:
                log.warning("skipping the checkpoint %s: %s", directory, fault)
                continue
            for inside in _INSIDE:
                yield directory / inside


def whole(directory: Path) -> Path:
    """Return a directory that is named by itself; raise `UnusableCheckpoint` unless its files are as they were written.

    Without a completion marker, in it or above its shards, nothing tells that.
    """
    for root in (directory, directory.parent) if layout_of(directory) else ():
        fault = _fault_by_marker(root, directory)
        if fault:
            raise UnusableCheckpoint(
                f"{root} cannot be used: {fault}. Copy it again; or if you have changed this file yourself, remove "
                f"{checkpoints.MARKER} beside it"
            )
    return directory


def _tagged(root: Path, tag: Path) -> Path:
    """What DeepSpeed says is its newest; another would be used without anyone having asked for it."""
    named = root / tag.read_text(encoding="utf-8", errors="replace").strip()
    if layout_of(named) is None:
        there = ", ".join(directory.name for _, directory in _steps(root)) or "none"
        raise UnusableCheckpoint(
            f"{tag} names {named} as the newest checkpoint, and that holds no weights; steps there: {there}. Copy it "
            "again, or say which step is meant"
        )
    return whole(named)


def _of_trial(directory: Path) -> Iterator[Path]:
    """The best checkpoint of a trial of ours, if it knows one; raises `UnusableCheckpoint` when that is damaged."""
    newest = checkpoints.newest_complete(directory, "trainer_state.json".__eq__) if _is_ours(directory) else None
    step = newest.state.get("best_global_step") if newest else None
    if newest is None or step is None:
        return
    best = directory / f"checkpoint-{step}"
    fault = checkpoints.find_fault(best, _used(best, best))
    if fault:
        raise UnusableCheckpoint(
            f"{best}, the best checkpoint of the trial, cannot be used: {fault}. Copy it again, or name "
            f"{newest.path}, the newest one, to go on from that"
        )
    yield best


def _check_last_was_kept(path: Path) -> None:
    """Raises `UnusableCheckpoint` where only the best model stayed of a trial, which is not what `latest` means."""
    for root in _roots(path):
        ended = read_ending(root)
        if ended is not None and not (root / f"checkpoint-{ended.step}").is_dir():
            raise UnusableCheckpoint(
                f"{path} no longer holds its last checkpoint, of step {ended.step}: only its best model was kept. "
                "Leave `latest` out to use that one, or train with trainer.keep: last"
            )


def _is_ours(directory: Path) -> bool:
    """Whether our code wrote the checkpoints in it; Hugging Face's Trainer gives them the same names."""
    return any(directory.glob(f"checkpoint-*/{checkpoints.MARKER}"))


def _steps(root: Path) -> list[tuple[int, Path]]:
    """The directories of steps, the newest first."""
    if not root.is_dir():
        return []
    found = [(int(name[1]), path) for path in root.iterdir() if path.is_dir() and (name := _STEP.fullmatch(path.name))]
    return sorted(found, reverse=True)


def _fault(step: Path) -> str | None:
    """Return what is wrong with a checkpoint whose writer left an inventory; many have none."""
    if _is_ours(step.parent) and not (step / checkpoints.MARKER).is_file():
        return checkpoints.find_fault(step)
    return _fault_by_marker(step, step)


def _fault_by_marker(root: Path, directory: Path) -> str | None:
    """Compare the weights in `directory` with the marker in `root`; return what differs, None without a marker."""
    if (root / checkpoints.MARKER).is_file():
        return checkpoints.find_fault(root, _used(root, directory))
    marker = root / _COMPLETE
    if not marker.is_file():
        return None
    try:
        listed = [
            (entry["path"], entry["size"]) for entry in json.loads(marker.read_text(encoding="utf-8"))["artifacts"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        return f"its {_COMPLETE} cannot be read ({error!r})"
    for name, size in listed:
        file = root / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{name} is missing, or has not the {size} bytes that its {_COMPLETE} says"
    return None


def _used(root: Path, directory: Path) -> Callable[[str], bool]:
    """Select the files that make a model: those of the model, or the shards where it has no other weights."""
    if layout_of(directory) not in (None, "DeepSpeed"):
        return checkpoints.weights
    return lambda name: (root / name).parent == directory or checkpoints.weights(name)


def _config_of(directory: Path, layout: Layout) -> Path:
    if layout == "Hugging Face":
        return directory / "config.json"
    for parent in _around(directory):
        for name in _CONFIGURATIONS:
            if _describes_a_model(parent / name):
                return parent / name
    raise UnusableCheckpoint(
        f"{directory} has weights, but neither it nor the three directories above hold a config.yaml (or "
        ".hydra/config.yaml), which tells the number of heads, or a config.json. Put the one of that training beside "
        "the weights"
    )


def _around(directory: Path) -> list[Path]:
    """List where a configuration and a tokenizer may lie: with the weights, or above them, the nearest first."""
    return [directory, *list(directory.parents)[:3]]


def _describes_a_model(path: Path) -> bool:
    """Tell a model's configuration from that of other programs: DeepSpeed's may be called config.json, too."""
    return path.is_file() and (path.suffix != ".json" or bool({"model_type", "model"} & _mapping(path).keys()))


def _mapping(path: Path) -> dict[str, Any]:
    """Read a mapping from JSON; return an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tokenizer_of(directory: Path) -> Path | None:
    near = _around(directory)[: 4 if directory.name in _INSIDE else 3]
    for parent in near:
        for place in (parent, parent / "tokenizer"):
            if any((place / name).is_file() for name in _TOKENIZERS):
                return place
    return None
