"""A directory that Hugging Face's libraries load: with this package, and with chandar-lab/NeoBERT's published code.

The published code knows one head for masked words, a matrix of its own with a bias. A tied decoder is therefore written
out as a matrix, and one without a bias gets a bias of zeros: the same function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neobert.errors import RunError
from neobert.model import NeoBERTConfig
from neobert.training.checkpoints import share
from neobert.training.files import write_json

HUB = "chandar-lab/NeoBERT"

ROUNDING = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}
"""By which share of the largest output any of them may change, when weights are written in this precision."""

_HUB_CLASSES = {
    "NeoBERT": ("NeoBERT", "AutoModel"),
    "NeoBERTForMaskedLM": ("NeoBERTLMHead", "AutoModelForMaskedLM"),
    "NeoBERTForSequenceClassification": ("NeoBERTForSequenceClassification", "AutoModelForSequenceClassification"),
}
"""What the published code has for our classes: its class, and the name by which it is asked for."""

_SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps", "vocab_size",
          "pad_token_id", "max_position_embeddings")  # fmt: skip


def hub_fault(model: Any) -> str | None:
    """Why the published code cannot compute what this model does, or None if it can."""
    config: NeoBERTConfig = model.config
    rope = config.rope_parameters or {}
    if rope["rope_type"] != "default":
        return f"it knows no stretched RoPE, and this is a {rope['rope_type']} one"
    if rope["rope_theta"] != config.default_theta:
        return f"its RoPE has the base {config.default_theta:g}, and this one {rope['rope_theta']:g}"
    if type(model).__name__ == "NeoBERTForSequenceClassification" and config.classifier_pooling != "cls":
        return f"its head looks at the first token alone, and this one at the {config.classifier_pooling}"
    if type(model).__name__ not in _HUB_CLASSES:
        return f"it has nothing like {type(model).__name__}"
    return None


def write_model(model: Any, directory: Path, dtype: torch.dtype, for_hub_code: bool) -> None:
    """Writes config.json and model.safetensors; the directory must exist."""
    if for_hub_code:
        config, weights = _hub_config(model), _with_own_decoder(model)
    else:
        config, weights = _own_config(model), model.state_dict()
        if model.config.tie_word_embeddings:
            weights.pop("decoder.weight", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    weights = {name: tensor.detach().to(dtype).contiguous() for name, tensor in weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    share(directory / "model.safetensors")
    write_json(directory / "config.json", dict(sorted(config.items())))


def _own_config(model: Any) -> dict[str, Any]:
    return {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}


def _hub_config(model: Any) -> dict[str, Any]:
    """In the words of the published configurations; ours reads them as well."""
    own = model.config.to_dict()
    name, auto = _HUB_CLASSES[type(model).__name__]
    found = {
        "architectures": [name],
        "auto_map": {"AutoConfig": f"{HUB}--model.NeoBERTConfig", "AutoModel": f"{HUB}--model.NeoBERT",
                     auto: f"{HUB}--model.{name}"},
        "model_type": "neobert",
        "max_length": own["max_position_embeddings"],
        "dim_head": model.config.head_size,
        "tie_word_embeddings": False,
        "embedding_init_range": own["initializer_range"],
        "decoder_init_range": own["initializer_range"],
    }  # fmt: skip
    if auto == "AutoModelForSequenceClassification":
        found |= {key: own[key] for key in ("id2label", "label2id", "problem_type", "classifier_dropout") if key in own}
    return found | {key: own[key] for key in _SHAPE}


def _with_own_decoder(model: Any) -> dict[str, Tensor]:
    weights = dict(model.state_dict())
    if "decoder.weight" in weights:
        weights["decoder.weight"] = weights["decoder.weight"].clone()  # safetensors refuses shared memory
        if "decoder.bias" not in weights:
            weights["decoder.bias"] = torch.zeros(model.config.vocab_size)
    return weights


def largest_difference(model: Any, directory: Path) -> float:
    """By how much any output changes on the way through the directory, loaded as anyone would, and measured on noise.

    Raises `RunError` when the directory does not load whole, or when the outputs differ by more than its precision.
    """
    shape, size = model.config, min(16, model.config.max_position_embeddings)
    loaded, info = type(model).from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    faults = {name: sorted(map(str, found)) for name, found in info.items() if found}
    if faults:
        raise RunError(f"{directory} does not load as it was written: {faults}")
    ids = torch.randint(0, shape.vocab_size, (2, size), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, size // 2 :] = 0
    with torch.no_grad():
        before, after = (each.eval()(ids, mask)[0] for each in (model, loaded))
    difference = float((before - after).abs().max())
    rounding = ROUNDING[next(iter(load_file(directory / "model.safetensors").values())).dtype]
    if not difference <= rounding * float(before.abs().max()):
        raise RunError(f"{directory} computes something else than its source: outputs differ by up to {difference:g}")
    return difference
