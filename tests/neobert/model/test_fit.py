"""A tokenizer that gives what a model has no row for is a mistake that shows at loading, not in the first step."""

from __future__ import annotations

import copy
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.tokenizing import train_wordpiece
from neobert.model import fit
from tests.neobert.model.test_architectures import GPT, ROBERTA, save
from tests.neobert.model.test_loading import build

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    learned = train_wordpiece(generated_splits(TASKS["rte"], 200).train.texts, 300, 64)
    return transformers.BertTokenizer(vocab=learned.get_vocab(), model_max_length=64)


@pytest.mark.parametrize(("kind", "shape"), [("roberta", ROBERTA), ("ibert", ROBERTA), ("gpt2", GPT)])
def test_token_types_of_a_model_that_has_none_are_left_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, shape: Any
) -> None:
    """RoBERTa's own tokenizer gives none. GPT-2 would add the embeddings of the words 0 and 1."""
    path = save(kind, shape, tokenizer, tmp_path)
    notice = "the model has no token types, so those of the tokenizer of"
    with caplog.at_level(logging.INFO):
        assert build(path, "sst2").inputs == ["input_ids", "attention_mask"]
        assert notice not in caplog.text
        assert build(path, "rte").inputs == ["input_ids", "attention_mask"]
    assert caplog.text.count(notice) == 1


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("bert", SIZE), ("xlnet", {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}),
     ("funnel", {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1]})],
)  # fmt: skip
def test_token_types_of_a_model_that_has_them_stay(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kind: str, shape: Any
) -> None:
    """XLNet and Funnel use them without an embedding."""
    assert "token_type_ids" in build(save(kind, shape, tokenizer, tmp_path)).inputs


def test_more_token_types_than_a_model_has_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    three = copy.deepcopy(tokenizer)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    three.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:2 [SEP]:2", special_tokens=special
    )
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(three), **SIZE))
    fit.check_fit("x", model, three, 32, ("a single text",))
    told = r"^model.tokenizer: 'x' gives token types up to 2, but the model has 2 \(type_vocab_size\)$"
    with pytest.raises(ConfigError, match=told):
        fit.check_fit("x", model, three, 32, ("a pair", "of texts"))


def test_entries_with_numbers_beyond_the_embeddings_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """The numbers of a tokenizer may have gaps."""
    path = save("bert", {**SIZE, "max_position_embeddings": 64}, tokenizer, tmp_path)
    known = json.loads((path / "tokenizer.json").read_text())
    vocabulary = known["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 50
    (path / "tokenizer.json").write_text(json.dumps(known))
    with pytest.raises(ConfigError, match=r"^model.tokenizer: has \d+ entries, but the model only \d+ embeddings"):
        build(path)


def test_a_model_without_a_number_of_padding_gets_that_of_the_tokenizer(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The head of a decoder takes the last token that is no padding, and refuses batches where it knows none."""
    path = save("gpt2", GPT, tokenizer, tmp_path)
    shape = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(shape | {"pad_token_id": None}))
    assert build(path).model.config.pad_token_id == tokenizer.pad_token_id
    assert "pads with the token" not in caplog.text
    (path / "config.json").write_text(json.dumps(shape | {"pad_token_id": 7}))
    build(path)
    assert f"the tokenizer of {path} pads with the token 0, and pad_token_id of the model is 7" in caplog.text


def test_positions_of_an_embedding_of_any_class_are_counted(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = save("ibert", {**ROBERTA, "pad_token_id": 0}, tokenizer, tmp_path)
    build(path, max_length=32)
    with pytest.raises(ConfigError, match=r"^data.max_length: is 33, but the model takes at most 32"):
        build(path, max_length=33)


def test_a_model_is_tried_out_without_a_trace(tokenizer: PreTrainedTokenizerBase) -> None:
    class Draws(torch.nn.Linear):
        calls = 0

        def forward(self, input_ids: torch.Tensor) -> None:
            type(self).calls += 1
            self.seen = torch.rand(1), np.random.rand(), random.random()

    model = Draws(2, 2).eval()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    fit.try_out("x", "name_or_path", model, [{"input_ids": torch.zeros(1, 3)}] * 2, training=True)
    assert Draws.calls == 2
    assert not hasattr(model, "seen")
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    with pytest.raises(ConfigError, match=r"^model.name_or_path: 'x' cannot compute a text of 3 tokens: TypeError: "):
        fit.try_out("x", "name_or_path", model, [{"input_ids": torch.zeros(1, 3), "other": torch.zeros(1)}], True)


def test_the_shortest_and_the_longest_text_are_tried(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [("the film is good and the film",), ("film",), ("the film is good and it is long, and it is good",)]
    lengths = [len(ids) for ids in tokenizer([text for (text,) in texts])["input_ids"]]
    assert lengths[1] < lengths[0] < lengths[2]
    batches = fit.extremes(tokenizer, texts, lengths[2] - 1, ["input_ids"])
    assert [batch["input_ids"].shape for batch in batches] == [(1, lengths[1]), (1, lengths[2] - 1)]
