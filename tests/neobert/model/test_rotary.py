"""RoPE, stretched to longer sequences as Hugging Face's own models stretch theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from neobert.config.pretrain import EncoderConfig
from neobert.data.tokenizing import train_wordpiece
from neobert.model import NeoBERT, NeoBERTConfig
from neobert.model.pretraining import build_model
from neobert.model.rotary import frequencies, rotation

SMALL = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "rope_theta": 500000.0, "original_max_position_embeddings": 32,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # fmt: skip


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 50000.0}, LINEAR, YARN, LLAMA3])
def test_angles_are_those_of_transformers(rope: dict[str, Any]) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "max_position_embeddings": 128}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=dict(rope)))
    positions = torch.arange(128)
    cos, sin = (table[0, :, :16] for table in theirs(torch.zeros(1, 128, 64), positions[None]))  # there, they are twice
    config = NeoBERTConfig(**SMALL, max_position_embeddings=128, rope_parameters=dict(rope))
    own_cos, own_sin = rotation(positions, *frequencies(config))
    torch.testing.assert_close(own_cos[:, ::2], cos)
    torch.testing.assert_close(own_cos[:, 1::2], cos)
    torch.testing.assert_close(own_sin[:, ::2], -sin)
    torch.testing.assert_close(own_sin[:, 1::2], sin)


def test_linear_stretching_puts_more_positions_where_fewer_were() -> None:
    before, _ = frequencies(NeoBERTConfig(**SMALL))
    after, scale = frequencies(NeoBERTConfig(**SMALL, rope_parameters=dict(LINEAR)))
    torch.testing.assert_close(after * 4, before)
    assert scale == 1.0


def test_yarn_leaves_fast_turns_alone_and_scales_attention() -> None:
    before, _ = frequencies(NeoBERTConfig(**SMALL))
    after, scale = frequencies(NeoBERTConfig(**SMALL, rope_parameters=dict(YARN)))
    assert after[0] == before[0]
    torch.testing.assert_close(after[-1] * 4, before[-1])
    assert scale == pytest.approx(0.1 * torch.tensor(4.0).log().item() + 1)


@pytest.mark.parametrize("rope", [LINEAR, YARN])
def test_it_is_saved_and_loaded_with_the_model(rope: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NeoBERT(NeoBERTConfig(**SMALL, max_position_embeddings=128, rope_parameters=dict(rope))).eval()
    model.save_pretrained(tmp_path)
    loaded = NeoBERT.from_pretrained(tmp_path).eval()
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == model.config.rope_parameters
    ids = torch.randint(1, 60, (1, 100), generator=torch.Generator().manual_seed(1))
    found = loaded(ids).last_hidden_state
    assert torch.equal(found, model(ids).last_hidden_state)
    loaded.config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    assert not torch.allclose(loaded(ids).last_hidden_state, found, atol=1e-4)


def test_the_base_has_one_place() -> None:
    assert NeoBERTConfig(rope_theta=777.0).rope_parameters == {"rope_type": "default", "rope_theta": 777.0}
    given = NeoBERTConfig(rope_parameters={"rope_type": "default", "rope_theta": 160000.0})
    torch.testing.assert_close(frequencies(given)[0][1].item(), 160000.0 ** (-2 / 64))
    assert not hasattr(given, "rope_theta")


def test_a_way_to_stretch_that_is_not_known_is_refused() -> None:
    with pytest.raises(Exception, match="rope_type 'dynamic' is none of default, linear, yarn, llama3"):
        NeoBERTConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})


@pytest.mark.parametrize("factors", [{}, {"low_freq_factor": 2.0, "high_freq_factor": 8.0}])
def test_a_pretraining_stretches_as_llama_does(factors: dict[str, float], tmp_path: Path) -> None:
    tokenizer = train_wordpiece([("some words to know",)], 60, 32)
    sizes = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    scaling = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 32, **factors}
    config = EncoderConfig(**sizes, max_position_embeddings=128, rope_theta=500000.0, rope_scaling=scaling)
    model = build_model(config, tokenizer, 128, None)
    assert model.config.rope_parameters == {**LLAMA3, **factors}
    theirs = ROPE_INIT_FUNCTIONS["llama3"](
        LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters={**LLAMA3, **factors}), None
    )
    torch.testing.assert_close(frequencies(model.config), theirs)


def test_a_pretraining_on_longer_texts_stretches_from_what_the_model_was_trained_on(tmp_path: Path) -> None:
    tokenizer = train_wordpiece([("some words to know",)], 60, 32)
    NeoBERT(NeoBERTConfig(**SMALL, max_position_embeddings=32))
    sizes = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    build_model(EncoderConfig(**sizes, max_position_embeddings=32), tokenizer, 32, None).save_pretrained(tmp_path / "a")
    scaling = {"rope_type": "yarn", "factor": 4.0}
    longer = EncoderConfig(name_or_path=str(tmp_path / "a"), max_position_embeddings=128, rope_scaling=scaling)
    model = build_model(longer, tokenizer, 128, None)
    assert model.config.rope_parameters == YARN
    assert model.config.max_position_embeddings == 128
    model.save_pretrained(tmp_path / "checkpoint")
    resumed = build_model(longer, tokenizer, 128, tmp_path / "checkpoint")
    assert resumed.config.rope_parameters == YARN  # and not stretched from 128
