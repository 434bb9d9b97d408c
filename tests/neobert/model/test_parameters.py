"""The numbers of parameters that the launcher reckons with are those of the models that are built."""

from __future__ import annotations

from typing import Any

import pytest
from accelerate import init_empty_weights

from neobert.config import parameters
from neobert.config.pretrain import EncoderConfig
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM, NeoBERTForSequenceClassification

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES = [
    {},
    {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100},
    {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 1},
]


def count(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_model_for_masked_words_has_as_many_as_reckoned(sizes: dict[str, int], tied: bool, bias: bool) -> None:
    shape = EncoderConfig(**sizes, tie_word_embeddings=tied, decoder_bias=bias)
    config = NeoBERTConfig(vocab_size=1003, tie_word_embeddings=tied, decoder_bias=bias,
                           **{name: getattr(shape, name) for name in SIZES})  # fmt: skip
    with init_empty_weights():
        model = NeoBERTForMaskedLM(config)
    model.tie_weights()
    head = parameters.decoder(shape.hidden_size, 1003, tied, bias)
    assert count(model) == parameters.encoder(shape, 1003) + head
    blocks = model.model.transformer_encoder.parameters()
    assert sum(weight.numel() for weight in blocks if weight.ndim == 2) == parameters.matrices(shape)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_classifier_has_as_many_as_reckoned(classes: int) -> None:
    shape = EncoderConfig()
    with init_empty_weights():
        model = NeoBERTForSequenceClassification(NeoBERTConfig(vocab_size=300, num_labels=classes))
    head = parameters.classifier(shape.hidden_size, classes)
    assert count(model) == parameters.encoder(shape, 300) + head
