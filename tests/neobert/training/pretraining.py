"""What the tests of pretraining share: text from the built-in grammar, shards of it, and tiny settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits

Neobert = Callable[..., int]
LENGTH = 32

SETTINGS: dict[str, Any] = {
    "model": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
              "max_position_embeddings": LENGTH, "initializer_range": 0.1},
    "dataset": {"max_seq_length": LENGTH, "shuffle_buffer_size": 256, "lanes": 8},
    "optimizer": {"lr": 5e-3},
    "trainer": {"per_device_train_batch_size": 4, "max_steps": 30, "save_steps": 10, "logging_steps": 5,
                "use_cpu": True, "keep": "all"},
}  # fmt: skip
"""All checkpoints stay, so that a copy without some of them is like a training that was killed before it was done."""


def write_text(directory: Path, documents: int = 1500) -> Path:
    """Sentences, one a line; some lines are long enough to be cut."""
    texts = [pair[0] for pair in generated_splits(TASKS["sst2"], documents).train.texts]
    lines = [" ".join(texts[i : i + 1 + 7 * (i % 40 == 0)]) for i in range(len(texts))]
    path = directory / "text.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_shards(neobert: Neobert, directory: Path, **more: Any) -> Path:
    settings = {
        "data": {"files": [str(write_text(directory))]},
        "tokenizer": {"train_vocab_size": 300},
        "output": str(directory / "shards"),
        "max_seq_length": LENGTH,
        "validation_fraction": 0.05,
        **more,
    }
    (directory / "preprocess.yaml").write_text(yaml.safe_dump(settings))
    assert neobert("preprocess", "--config", directory / "preprocess.yaml", "--output-dir", directory / "made") == 0
    return directory / "shards"


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def settings_file(directory: Path, shards: Path | None, **sections: Any) -> Path:
    """The tiny settings with these sections put over them; None takes a key away."""
    data = merged(SETTINGS, {"dataset": {"path": str(shards)}} if shards else {})
    data = merged(data, sections)
    data = {name: {k: v for k, v in section.items() if v is not None} for name, section in data.items()}
    path = directory / "pretrain.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def weights(trial: Path) -> dict[str, torch.Tensor]:
    return load_file(trial / "model" / "model.safetensors")


def same(one: Path, other: Path, tolerance: float = 0.0) -> bool:
    """Whether two trainings have ended with the same weights, bit for bit or up to an absolute difference."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all((first[name] - second[name]).abs().max() <= tolerance for name in first)


def logged(trial: Path, key: str) -> list[Any]:
    rows = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]
