"""The heads over the encoder: what they guess, from which token, and that nothing is lost in saving them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from neobert.model import (
    NeoBERT,
    NeoBERTConfig,
    NeoBERTForMaskedLM,
    NeoBERTForSequenceClassification,
    NeoBERTForTokenClassification,
)

SMALL = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "initializer_range": 0.3}  # fmt: skip
TIED = {"tie_word_embeddings": True, "decoder_bias": False}


def made(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(NeoBERTConfig(**SMALL, **settings)).eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(1, 60, shape, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
"""Nothing to pad, padding on the left, and on the right."""


@pytest.mark.parametrize(
    ("kind", "auto"),
    [
        (NeoBERT, AutoModel),
        (NeoBERTForMaskedLM, AutoModelForMaskedLM),
        (NeoBERTForSequenceClassification, AutoModelForSequenceClassification),
        (NeoBERTForTokenClassification, AutoModelForTokenClassification),
    ],
)
@pytest.mark.parametrize("settings", [{}, TIED, {"tie_word_embeddings": True}, {"decoder_bias": False}])
def test_a_saved_model_is_the_same_when_loaded(kind: Any, auto: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    model = made(kind, num_labels=3, **settings)
    model.save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(loaded) is kind
    assert torch.equal(loaded.eval()(ids(3, 6), MASK)[0], model(ids(3, 6), MASK)[0])


def test_a_tied_decoder_is_the_embedding_and_learns_with_it(tmp_path: Path) -> None:
    model = made(NeoBERTForMaskedLM, **TIED)
    assert model.decoder.weight is model.model.encoder.weight
    assert model.decoder.bias is None
    model(ids(1, 6), labels=ids(1, 6)).loss.backward()
    before = model.model.encoder.weight.detach().clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    unseen = [number for number in range(1, 60) if number not in ids(1, 6)]
    assert not torch.equal(model.decoder.weight[unseen], before[unseen])  # by the decoder's share of the gradient
    model.save_pretrained(tmp_path)
    assert "decoder.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = NeoBERTForMaskedLM.from_pretrained(tmp_path)
    assert loaded.decoder.weight is loaded.model.encoder.weight
    assert torch.equal(loaded.decoder.weight, model.decoder.weight)


def test_untied_ones_have_a_matrix_and_a_bias_of_their_own() -> None:
    model = made(NeoBERTForMaskedLM)
    assert model.decoder.weight is not model.model.encoder.weight
    assert model.decoder.bias.shape == (60,)


def test_the_loss_of_masked_words_is_the_mean_over_those_to_be_guessed() -> None:
    model = made(NeoBERTForMaskedLM)
    labels = torch.where(torch.arange(18).view(3, 6) % 4 == 0, ids(3, 6), -100)
    labels[MASK == 0] = -100
    found = model(ids(3, 6), MASK, labels=labels)
    logits = model(ids(3, 6), MASK).logits
    torch.testing.assert_close(found.loss, cross_entropy(logits.flatten(0, 1), labels.flatten()))
    torch.testing.assert_close(found.loss_sum, found.loss * found.masked)
    assert found.masked == (labels != -100).sum()
    assert found.correct == (logits.argmax(-1) == labels).sum()


def test_tokens_without_a_class_do_not_count() -> None:
    model = made(NeoBERTForTokenClassification, num_labels=5)
    labels = torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(2))
    labels[:, ::2] = -100
    found = model(ids(3, 6), MASK, labels=labels)
    torch.testing.assert_close(found.loss, cross_entropy(found.logits[labels >= 0], labels[labels >= 0]))
    assert found.logits.shape == (3, 6, 5)


def test_a_text_is_classified_by_its_first_token_on_whichever_side_the_padding_is() -> None:
    model = made(NeoBERTForSequenceClassification, num_labels=3)
    together = model(ids(3, 6), MASK).logits
    alone = torch.cat([model(row[mask.bool()][None]).logits for row, mask in zip(ids(3, 6), MASK, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    state = model.model(ids(3, 6)[1, 2:][None]).last_hidden_state[:, 0]
    torch.testing.assert_close(together[1], model.classifier(model.dense(state).tanh())[0], atol=1e-5, rtol=1e-5)


def test_a_text_may_be_classified_by_the_mean_of_its_tokens() -> None:
    model = made(NeoBERTForSequenceClassification, num_labels=3, classifier_pooling="mean")
    together = model(ids(3, 6), MASK).logits
    for row, mask, found in zip(ids(3, 6), MASK, together, strict=True):
        alone = row[mask.bool()][None]
        state = model.model(alone).last_hidden_state.mean(1)
        for expected in (model(alone).logits, model.classifier(model.dense(state).tanh())):
            torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_one_vector_a_text_has_nothing_of_the_padding(pooling: str) -> None:
    encoder = made(NeoBERT)
    together = encoder.embed(ids(3, 6), MASK, pooling)
    for row, mask, found in zip(ids(3, 6), MASK, together, strict=True):
        states = encoder(row[mask.bool()][None]).last_hidden_state[0]
        torch.testing.assert_close(found, states.mean(0) if pooling == "mean" else states[0], atol=1e-5, rtol=1e-5)


def test_a_pooling_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling is 'max'; expected mean or cls"):
        made(NeoBERT).embed(ids(3, 6), MASK, "max")
