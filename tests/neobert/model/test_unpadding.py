"""What is computed without padding is what is computed with it, and does not depend on which texts share a batch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from random import Random
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from neobert.model import neighbours
from neobert.model.length_groups import in_groups, of_one_length, split_by_length
from neobert.model.packing import fixed_layout
from neobert.model.unpadding import KINDS, spare_padding, takes_padding_left, unpad, warn_of_padding
from neobert.model.verify import encoder_of
from tests.neobert.conftest import as_if_trained

SIZE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 40, "num_labels": 3, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0}  # fmt: skip
DISTIL = {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0,
          "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "num_labels": 3}  # fmt: skip
LENGTHS = [5, 12, 3, 12, 8, 2]


def classifier(kind: str, **more: Any) -> Any:
    shape = transformers.AutoConfig.for_model(kind, **{**(DISTIL if kind == "distilbert" else SIZE), **more})
    torch.manual_seed(0)
    return as_if_trained(transformers.AutoModelForSequenceClassification.from_config(shape))


def batch(lengths: list[int], left: bool = False) -> dict[str, Tensor]:
    """Token 1 is padding, whatever stands there."""
    width = max(lengths)
    ids = torch.randint(5, 60, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    places = torch.arange(width - 1, -1, -1) if left else torch.arange(width)
    mask = (places < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask == 1, ids, 1), "attention_mask": mask}


def gradients(model: Any, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (logits * torch.arange(1.0, logits.numel() + 1).reshape(logits.shape)).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(one: Any, other: Any, inputs: dict[str, Tensor]) -> None:
    first, second = one.double()(**inputs).logits, other.double()(**inputs).logits
    torch.testing.assert_close(first, second, atol=1e-10, rtol=1e-10)
    before, after = gradients(one, first), gradients(other, second)
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7, 7], [4]])
def test_blocks_without_padding_give_the_same_logits_and_gradients(kind: str, lengths: list[int]) -> None:
    padded = classifier(kind)
    unpadded = copy.deepcopy(padded)
    assert unpad(unpadded, encoder_of(unpadded)[1])
    assert_same(padded, unpadded, batch(lengths))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [0, 1, 9, 23])
def test_tokens_and_sequences_that_fill_up_a_layout_change_nothing(kind: str, more: int) -> None:
    padded = classifier(kind)
    unpadded = copy.deepcopy(padded)
    unpad(unpadded, encoder_of(unpadded)[1])
    inputs = batch(LENGTHS)
    layout = fixed_layout(**inputs, tokens=sum(LENGTHS) + more, fillers=2)
    first, second = padded(**inputs).logits, unpadded(**inputs, layout=layout).logits[: len(LENGTHS)]
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    before, after = gradients(padded, first), gradients(unpadded, second)
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert_same(padded, unpadded, inputs)  # the next batch comes without a layout


@pytest.mark.parametrize("kind", KINDS)
def test_last_blocks_make_no_keys_and_values(kind: str) -> None:
    model = classifier(kind)
    unpad(model, encoder_of(model)[1])
    names = ("self.key", "self.value", "k_lin", "v_lin")
    layers = [module for name, module in model.named_modules() if name.endswith(names)]
    calls = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    model(**batch(LENGTHS))
    assert calls == layers[:2]  # those of the first block of two


# Not BERT with padding on the left: its positions count from there, padding and all.
@pytest.mark.parametrize(
    ("kind", "left"), [("bert", False), ("deberta-v2", False), ("deberta-v2", True), ("mpnet", False), ("mpnet", True)]
)
def test_groups_of_like_length_give_the_same_logits_and_gradients(kind: str, left: bool) -> None:
    padded = classifier(kind)
    grouped = copy.deepcopy(padded)
    in_groups(grouped)
    assert_same(padded, grouped, batch(LENGTHS, left))


def padding_matters(model: Any, left: bool = False, longest: int = 12) -> bool:
    text = {name: tensor[0].numpy() for name, tensor in batch([longest]).items()}

    def collate(texts: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = [len(text["input_ids"]) for text in texts]
        places = [slice(max(lengths) - n, None) if left else slice(n) for n in lengths]
        found = {name: torch.zeros(len(texts), max(lengths), dtype=torch.long) for name in texts[0]}
        for row, (text, place) in enumerate(zip(texts, places, strict=True)):
            for name, tensor in found.items():
                tensor[row, place] = torch.as_tensor(text[name])
        return found

    return neighbours.matter(model, text, {0, 1}, collate)


OTHERS = {"mpnet": {}, "fnet": {"type_vocab_size": 2}, "convbert": {"embedding_size": 16, "conv_kernel_size": 3,
          "head_ratio": 2}, "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4}}  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", *OTHERS])
def test_what_is_said_of_a_text_does_not_depend_on_its_neighbours(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = classifier(kind, **OTHERS.get(kind, {}), initializer_range=0.2).eval()
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.INFO):
        spare_padding(model, torch.device("cpu"), partial(padding_matters, model))
    assert torch.equal(torch.random.get_rng_state(), before)
    changed = kind in ("fnet", "convbert", "nystromformer")
    assert ("only texts of one length are computed together" in caplog.text) == changed
    assert not model.training
    inputs = batch(LENGTHS)
    with torch.no_grad():
        together = model(**inputs).logits
        for row, length in enumerate(LENGTHS):
            alone = model(**{name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}).logits
            torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_padding_on_the_left_is_noticed_where_a_head_looks_at_the_first_column(kind: str) -> None:
    """On GPUs BERT is computed in groups, too."""
    model = classifier(kind)
    assert not padding_matters(model)
    assert padding_matters(model, left=True)
    assert takes_padding_left(model) == (kind != "bert")
    assert model.training


@pytest.mark.parametrize("longest", [4, 8, 12])
def test_an_influence_as_small_as_at_the_beginning_of_a_training_is_noticed(longest: int) -> None:
    model = classifier("convbert", **OTHERS["convbert"], initializer_range=0.01).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert padding_matters(model, longest=longest)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
        assert weight.dtype == before[name].dtype


def test_a_model_that_takes_four_tokens_together_and_none_of_three(caplog: pytest.LogCaptureFixture) -> None:
    shape = transformers.CanineConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                      local_transformer_stride=8, num_hash_buckets=64)  # fmt: skip
    model = transformers.CanineForSequenceClassification(shape)
    assert padding_matters(model, longest=32)
    assert not caplog.text
    assert padding_matters(model, longest=4)
    assert "whether padding changes what CanineForSequenceClassification says cannot be computed" in caplog.text


def test_logits_that_are_no_numbers_prove_nothing() -> None:
    model = classifier("bert")
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    assert padding_matters(model)


def test_with_deepspeed_it_is_told_that_padding_changes_scores(caplog: pytest.LogCaptureFixture) -> None:
    bert, fnet = classifier("bert"), classifier("fnet", **OTHERS["fnet"])
    warn_of_padding(bert, partial(padding_matters, bert))
    assert not caplog.text
    warn_of_padding(fnet, partial(padding_matters, fnet))
    assert "scores depend on which texts share a batch" in caplog.text


def test_dropout_of_attention_is_that_of_the_model() -> None:
    model = classifier("bert").train()
    model.config.attention_probs_dropout_prob = 0.5
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5 if module in [layer.attention.self.dropout for layer in model.bert.encoder.layer] else 0.0
    unpad(model, model.bert)
    inputs = batch(LENGTHS)
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.eval()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_a_kind_that_nothing_is_known_of_is_left_as_it_is() -> None:
    model = classifier("mpnet")
    forward = model.forward
    assert not unpad(model, encoder_of(model)[1])
    assert model.forward == forward


class MeanOfAll(transformers.BertPreTrainedModel):
    """As the code that some models on the hub bring: it is of BERT's kind, and looks at all tokens."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return SequenceClassifierOutput(logits=self.classifier((states * mask).sum(1) / mask.sum(1)))


class OthersBert(transformers.BertModel):
    """Code of others under the library's own head."""


def others(what: str) -> Any:
    shape = transformers.AutoConfig.for_model("bert", **SIZE, is_decoder=what == "decoder")
    torch.manual_seed(0)
    if what == "model":
        return as_if_trained(MeanOfAll(shape))
    model = transformers.BertForSequenceClassification(shape)
    if what == "encoder":
        model.bert = OthersBert(shape)
    return as_if_trained(model)


@pytest.mark.parametrize("what", ["model", "encoder", "decoder"])
def test_code_that_only_calls_itself_bert_computes_what_it_did(what: str) -> None:
    model = others(what).eval()
    assert model.config.model_type == "bert"
    inputs = batch(LENGTHS)
    with torch.no_grad():
        before = model(**inputs).logits
        spare_padding(model, torch.device("cpu"), partial(padding_matters, model))
        torch.testing.assert_close(model(**inputs).logits, before, atol=1e-6, rtol=1e-5)
    assert not unpad(model, encoder_of(model)[1])


def cost(groups: list[list[int]], lengths: list[int], call: int) -> int:
    return sum(call + len(rows) * max(lengths[row] for row in rows) for rows in groups)


def every_split(lengths: list[int]) -> list[list[list[int]]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cuts = [c for n in range(len(order)) for c in combinations(range(1, len(order)), n)]
    return [[order[a:b] for a, b in zip((0, *cut), (*cut, len(order)), strict=True)] for cut in cuts]


@pytest.mark.parametrize("call", [0, 5, 40, 1000])
def test_groups_cost_as_little_as_can_be(call: int) -> None:
    random = Random(call)
    for _ in range(20):
        lengths = [random.randint(1, 30) for _ in range(7)]
        groups = split_by_length(lengths, call)
        assert sorted(row for rows in groups for row in rows) == list(range(7))
        assert cost(groups, lengths, call) == min(cost(split, lengths, call) for split in every_split(lengths))


def test_groups_without_padding_are_of_one_length() -> None:
    assert of_one_length([5, 12, 3, 12, 5]) == [[2], [0, 4], [1, 3]]


def test_who_looks_at_what_the_model_takes_sees_its_own() -> None:
    import inspect

    model = classifier("mpnet")
    before: Callable[..., Any] = model.forward
    in_groups(model)
    assert inspect.signature(model.forward) == inspect.signature(before)
