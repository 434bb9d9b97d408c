"""With only the used rows of its embedding among the weights, a model learns, computes and is saved as before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from neobert.model import NeoBERTConfig, NeoBERTForSequenceClassification
from neobert.model.used_rows import UsedRows, train_used_rows

SIZE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "num_labels": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
TEXTS = torch.tensor([[2, 7, 9, 3, 0, 0], [2, 30, 7, 41, 42, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
UNSEEN = torch.tensor([[2, 58, 11, 3, 0, 0], [2, 7, 9, 59, 13, 3]])


def made(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "neobert":
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        config = NeoBERTConfig(**{name: SIZE[name] for name in names}, num_labels=3, classifier_dropout=0.0)
        return NeoBERTForSequenceClassification(config)
    return transformers.AutoModelForSequenceClassification.from_config(transformers.AutoConfig.for_model(kind, **SIZE))


def trained(model: Any) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
    model.train()
    for step in range(4):
        optimizer.zero_grad()
        rows = slice(step % 2, step % 2 + 1)  # so that a row in use has steps without a gradient, which move it, too
        logits = model(input_ids=TEXTS[rows], attention_mask=MASK[rows]).logits
        nn.functional.cross_entropy(logits, torch.tensor([step % 3])).backward()
        optimizer.step()
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "fnet", "neobert"])
def test_what_is_learned_is_the_same_bit_for_bit(kind: str) -> None:
    whole = made(kind)
    used = copy.deepcopy(whole)
    assert train_used_rows(used, TEXTS.numpy())
    assert isinstance(used.get_input_embeddings(), UsedRows)
    assert used.get_input_embeddings().weight.shape == (8, 16)  # padding, [CLS], [SEP], 7, 9, 30, 41, 42
    before = whole.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in used.state_dict().items())
    expected, found = trained(whole), trained(used)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    whole.eval(), used.eval()
    for ids in (TEXTS, UNSEEN):
        assert torch.equal(used(ids, attention_mask=MASK).logits, whole(ids, attention_mask=MASK).logits)


def test_in_evaluation_the_weights_of_now_count() -> None:
    model = made("bert")
    train_used_rows(model, TEXTS.numpy())
    first = model.eval()(TEXTS, attention_mask=MASK).logits
    trained(model)
    second = model.eval()(TEXTS, attention_mask=MASK).logits
    assert not torch.equal(first, second)
    other = made("bert")
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(2.0)
    model.load_state_dict(other.state_dict())
    expected = other.eval()(UNSEEN, attention_mask=MASK).logits
    assert torch.equal(model(UNSEEN, attention_mask=MASK).logits, expected)


def test_it_is_saved_as_a_whole_and_loaded_by_anyone(tmp_path: Path) -> None:
    model = made("bert")
    train_used_rows(model, TEXTS.numpy())
    weights = trained(model)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_a_row_that_is_not_in_use_cannot_be_trained() -> None:
    model = made("bert").train()
    train_used_rows(model, TEXTS.numpy())
    with pytest.raises(IndexError):
        model(UNSEEN, attention_mask=MASK)


@pytest.mark.parametrize("padding", [-1, 60, 1000])
def test_a_padding_that_has_no_row_is_none(padding: int) -> None:
    model = made("bert")
    model.config.pad_token_id = padding
    rows = train_used_rows(model, TEXTS.numpy())
    assert rows is not None and rows.used.tolist() == [0, 2, 3, 7, 9, 30, 41, 42]


@pytest.mark.parametrize("entries", [59, 80])
def test_weights_of_another_vocabulary_are_refused(entries: int) -> None:
    model = made("bert")
    train_used_rows(model, TEXTS.numpy())
    name = "bert.embeddings.word_embeddings.weight"
    before = model.state_dict()[name]
    wanted = {**model.state_dict(), name: torch.zeros(entries, 16)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(wanted)
    assert torch.equal(model.state_dict()[name], before)


class Foreign(transformers.BertForSequenceClassification):
    """Code that came with a model, which may do anything with its embeddings."""


def test_embeddings_of_code_from_elsewhere_are_left_alone() -> None:
    assert train_used_rows(Foreign(transformers.BertConfig(**SIZE)), TEXTS.numpy()) is None


def test_embeddings_that_are_something_else_too_are_left_alone() -> None:
    shape = transformers.BartConfig(
        vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    assert not train_used_rows(transformers.BartForSequenceClassification(shape), TEXTS.numpy())
    canine = transformers.CanineConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                       num_hash_buckets=64)  # fmt: skip
    assert not train_used_rows(transformers.CanineForSequenceClassification(canine), TEXTS.numpy())
