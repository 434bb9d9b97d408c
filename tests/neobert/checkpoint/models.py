"""A small model as if trained, and its weights in the layouts that such models have been saved in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM

SHAPE = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "max_position_embeddings": 32, "initializer_range": 0.2}  # fmt: skip

MODEL_SECTION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 60,
    "max_position_embeddings": 32, "norm_eps": 1e-5, "rope": True, "rms_norm": True, "hidden_act": "swiglu",
    "ngpt": False, "pad_token_id": 0, "dropout_prob": 0,
}  # fmt: skip
"""What config.yaml of older trainings says of SHAPE."""


def made(kind: Any = NeoBERTForMaskedLM, **settings: Any) -> Any:
    """A model whose norms have left the value that they begin with, as after a training."""
    torch.manual_seed(0)
    model = kind(NeoBERTConfig(**{**SHAPE, **settings})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.add_(torch.randn_like(weight) / 10)
    return model


def plain(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def split(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With SwiGLU's two branches apart, as code without xformers has them."""
    found = {}
    for name, tensor in weights.items():
        if ".w12." in name:
            found[name.replace("w12", "w1")], found[name.replace("w12", "w2")] = (
                part.clone() for part in tensor.chunk(2)
            )
        else:
            found[name] = tensor
    return found


def wrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"_orig_mod.module.{name.replace('model.', 'model._orig_mod.', 1)}": each for name, each in weights.items()}


def write_settings(path: Path, **model: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"model": {**MODEL_SECTION, **model}, "tokenizer": {"max_length": 32}}))


def logits(model: Any) -> Tensor:
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model(ids, torch.tensor([[1] * 9, [1] * 5 + [0] * 4]))[0]
