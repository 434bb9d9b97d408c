"""What a model makes of itself at its first batch is made, and nothing else is changed."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from neobert.data.tokenizing import Collator
from neobert.model.settling import settle


def test_a_model_that_draws_random_weights_at_its_first_batch_draws_none_later(tiny_bert: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    shape = transformers.BigBirdConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, classifier_dropout=0.0,
    )  # fmt: skip
    model = transformers.BigBirdForSequenceClassification(shape).train()
    text = {name: torch.tensor(ids).numpy() for name, ids in tokenizer("a text").items() if name != "attention_mask"}
    collate = Collator(tokenizer, regression=False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    generator = torch.random.get_rng_state()
    settle(model, {**text, "labels": 1}, collate)
    assert model.bert.attention_type == "original_full"
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    batch = collate([text])
    del batch["tokens"]
    model(**batch)
    assert torch.equal(torch.random.get_rng_state(), generator), "without dropout, a batch draws nothing"
