"""Counts the parameters of models whose files are on this machine."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from neobert.config import ConfigError, parameters
from neobert.config.keep import numbered
from neobert.config.paths import at_home
from slurm.disk.errors import Unknown

_LONGEST_HEADER = 100_000_000
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_HEADS = {
    "classifier", "cls", "decoder", "dense", "discriminator_predictions", "generator_lm_head", "generator_predictions",
    "head", "lm_head", "lm_predictions", "mlm_head", "pre_classifier", "pred_layer", "predictions", "qa_outputs",
    "score", "vocab_layer_norm", "vocab_projector", "vocab_transform",
}  # fmt: skip
"""Names that Hugging Face's models have for the parts beside their encoder."""


@dataclass(frozen=True)
class Size:
    """Parameters of an encoder, of the head beside it, and of the matrices in the encoder's blocks."""

    encoder: int
    head: int = 0
    matrices: int = 0
    hidden_size: int | None = None
    vocabulary: int | None = None

    @property
    def total(self) -> int:
        return self.encoder + self.head


def find_model(directory: Path) -> Path | None:
    """Return the directory of a model: this one, a pretraining's model, or the newest checkpoint of a trial."""
    places = [directory, directory / "model"]
    for checkpoints in (directory / "checkpoints", directory):
        places += [path for _, path in sorted(numbered(checkpoints), reverse=True)]
    return next((place for place in places if (place / "config.json").is_file()), None)


def find_on_hub(name: str, revision: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the snapshot of a repository in the hub's cache, where `recipe fetch` puts it."""
    try:
        repository = _hub_cache(environ) / f"models--{name.replace('/', '--')}"
    except ConfigError:  # a user without a home has no cache there
        return None
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = repository / "snapshots" / commit if commit else None
    return snapshot if snapshot is not None and snapshot.is_dir() else None


def _hub_cache(environ: Mapping[str, str]) -> Path:
    if environ.get("HF_HUB_CACHE"):
        return at_home(environ["HF_HUB_CACHE"])
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return at_home(home) / "hub"


@functools.cache
def read_size(directory: Path) -> Size:
    """Return the size of a Hugging Face model, by the headers of its files; raises `Unknown`."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        shapes = dict(_shapes(directory))
        if shapes:
            return _of_shapes(shapes, config)
        counted = _of_pickles(directory, config)
        return Size(counted, 0, 0, *_widths(config)) if counted else _of_neobert(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{directory} cannot be read ({error})") from None


def read_vocabulary(directory: Path) -> int | None:
    """Return the number of entries of the tokenizer in a directory, or None where none can be read."""
    whole, vocabulary = directory / "tokenizer.json", directory / "vocab.txt"
    try:
        if not whole.exists():
            return len(vocabulary.read_bytes().splitlines()) if vocabulary.is_file() else None
        tokenizer = json.loads(whole.read_text(encoding="utf-8"))
        entries = tokenizer["model"]["vocab"]
        names = set(entries) if isinstance(entries, dict) else {entry[0] for entry in entries}
        return len(names | {token["content"] for token in tokenizer["added_tokens"]})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_shapes(shapes: Mapping[str, list[int]], config: Mapping[str, Any]) -> Size:
    heads = sum(math.prod(shape) for name, shape in shapes.items() if _is_of_head(name))
    blocks = (shape for name, shape in shapes.items() if "transformer_encoder." in name and len(shape) == 2)
    everything = sum(map(math.prod, shapes.values()))
    return Size(everything - heads, heads, sum(map(math.prod, blocks)), *_widths(config))


def _is_of_head(name: str) -> bool:
    """Return whether a tensor belongs to a head; BART and its kin have layers in a `decoder`, which is not one."""
    first, *rest = name.split(".")
    return first in _HEADS and (first != "decoder" or len(rest) == 1)


def _of_neobert(config: Mapping[str, Any]) -> Size:
    """The size of a NeoBERT by its configuration alone; raises `Unknown` for other models."""
    if config.get("model_type") != "neobert":
        raise Unknown("there is a configuration, and no weights")
    shape, entries = SimpleNamespace(**config), config["vocab_size"]
    return Size(parameters.encoder(shape, entries), 0, parameters.matrices(shape), *_widths(config))


def _widths(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Hidden size and vocabulary, under the names that Hugging Face's models have for them."""
    width = next((config[name] for name in ("hidden_size", "dim", "d_model") if name in config), None)
    entries = config.get("vocab_size")
    return width if isinstance(width, int) else None, entries if isinstance(entries, int) else None


def _shapes(directory: Path) -> Iterator[tuple[str, list[int]]]:
    """The name and shape of every tensor in a model's safetensors files."""
    index, whole = directory / "model.safetensors.index.json", directory / "model.safetensors"
    files = [whole] if whole.is_file() else []
    if index.is_file():
        files = [directory / name for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())]
    for file in files:
        for name, tensor in _header(file).items():
            if name != "__metadata__":
                yield name.replace("_orig_mod.", "").replace("module.", ""), tensor["shape"]


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{file.name} is not a safetensors file")
        header: dict[str, Any] = json.loads(stream.read(length))
        return header


def _of_pickles(directory: Path, config: Mapping[str, Any]) -> int:
    """Parameters by the bytes of PyTorch's own files, which hold little else; 0 where there are none."""
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return sum(file.stat().st_size for file in directory.glob("pytorch_model*.bin")) // _BYTES[kind]
