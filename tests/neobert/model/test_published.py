"""Checkpoints as chandar-lab/NeoBERT is published load name by name, and compute what its code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from neobert.model import NeoBERT, NeoBERTForMaskedLM, NeoBERTForSequenceClassification

HIDDEN, HEADS, LAYERS, GATED, WORDS = 24, 2, 2, 32, 60

CONFIG = {
    "architectures": ["NeoBERTLMHead"],
    "auto_map": {
        "AutoConfig": "model.NeoBERTConfig",
        "AutoModel": "model.NeoBERT",
        "AutoModelForMaskedLM": "model.NeoBERTLMHead",
        "AutoModelForSequenceClassification": "model.NeoBERTForSequenceClassification",
    },
    "classifier_init_range": 0.02,
    "decoder_init_range": 0.02,
    "dim_head": HIDDEN // HEADS,
    "embedding_init_range": 0.02,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "kwargs": {"classifier_init_range": 0.02, "trust_remote_code": True},
    "max_length": 4096,
    "model_type": "neobert",
    "norm_eps": 1e-05,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 0,
    "pretrained_model_name_or_path": "google-bert/bert-base-uncased",
    "torch_dtype": "float32",
    "transformers_version": "4.48.2",
    "trust_remote_code": True,
    "vocab_size": WORDS,
}
"""The keys of the published config.json; the sizes are small ones."""


def published_weights() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes: dict[str, tuple[int, ...]] = {"model.encoder.weight": (WORDS, HIDDEN), "model.layer_norm.weight": (HIDDEN,)}
    for number in range(LAYERS):
        block = f"model.transformer_encoder.{number}"
        sizes |= {
            f"{block}.qkv.weight": (3 * HIDDEN, HIDDEN),
            f"{block}.wo.weight": (HIDDEN, HIDDEN),
            f"{block}.ffn.w12.weight": (2 * GATED, HIDDEN),
            f"{block}.ffn.w3.weight": (HIDDEN, GATED),
            f"{block}.attention_norm.weight": (HIDDEN,),
            f"{block}.ffn_norm.weight": (HIDDEN,),
        }
    sizes |= {"decoder.weight": (WORDS, HIDDEN), "decoder.bias": (WORDS,)}
    return {name: torch.randn(size, generator=random) * 0.3 for name, size in sizes.items()}


def as_published_code_computes(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits of one text, (length, words): with RoPE as complex numbers, and dense attention."""
    angles = torch.arange(len(ids))[:, None] * 10000.0 ** (-torch.arange(0, HIDDEN // HEADS, 2) / (HIDDEN // HEADS))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def rotated(states: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)

    def norm(states: Tensor, name: str) -> Tensor:
        return rms_norm(states, (HIDDEN,), weights[f"{name}.weight"], 1e-5)

    states = weights["model.encoder.weight"][ids]
    for number in range(LAYERS):
        block = f"model.transformer_encoder.{number}"
        product = linear(norm(states, f"{block}.attention_norm"), weights[f"{block}.qkv.weight"])
        query, key, value = product.view(len(ids), HEADS, 3 * HIDDEN // HEADS).chunk(3, dim=-1)
        scores = torch.einsum("ihd,jhd->hij", rotated(query), rotated(key)) / (HIDDEN // HEADS) ** 0.5
        mixed = torch.einsum("hij,jhd->ihd", scores.softmax(-1), value).flatten(-2)
        states = states + linear(mixed, weights[f"{block}.wo.weight"])
        gate, up = linear(norm(states, f"{block}.ffn_norm"), weights[f"{block}.ffn.w12.weight"]).chunk(2, dim=-1)
        states = states + linear(silu(gate) * up, weights[f"{block}.ffn.w3.weight"])
    return linear(norm(states, "model.layer_norm"), weights["decoder.weight"], weights["decoder.bias"])


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(published_weights(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, NeoBERTForMaskedLM])
def test_every_weight_has_its_place_and_none_is_new(auto: Any, published: Path) -> None:
    model, info = auto.from_pretrained(published, output_loading_info=True)
    assert not any(info.values()), info
    assert isinstance(model, NeoBERTForMaskedLM)
    loaded = model.state_dict()
    for name, tensor in published_weights().items():
        assert torch.equal(loaded.pop(name), tensor), name
    assert not loaded


def test_it_computes_what_the_published_code_does(published: Path) -> None:
    ids = torch.randint(1, WORDS, (11,), generator=torch.Generator().manual_seed(1))
    expected = as_published_code_computes(published_weights(), ids)
    model = NeoBERTForMaskedLM.from_pretrained(published).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], expected, atol=1e-4, rtol=1e-4)


def test_the_configuration_is_understood(published: Path) -> None:
    config = AutoModel.from_pretrained(published).config
    assert config.max_position_embeddings == 4096
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert (config.tie_word_embeddings, config.decoder_bias) == (False, True)


def test_the_bare_encoder_and_a_classifier_take_all_but_the_decoder(published: Path) -> None:
    for auto, kind in [(AutoModel, NeoBERT), (AutoModelForSequenceClassification, NeoBERTForSequenceClassification)]:
        model, info = auto.from_pretrained(published, output_loading_info=True)
        assert isinstance(model, kind)
        assert set(info["unexpected_keys"]) == {"decoder.weight", "decoder.bias"}
        head = {"dense.weight", "dense.bias", "classifier.weight", "classifier.bias"}
        assert set(info["missing_keys"]) == (head if kind is not NeoBERT else set())
        weight = published_weights()["model.transformer_encoder.1.qkv.weight"]
        assert torch.equal(getattr(model, "model", model).transformer_encoder[1].qkv.weight, weight)
