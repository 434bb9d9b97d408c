"""NeoBERT computes what its paper says, whatever stands beside an example in its batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from neobert.model import NeoBERT, NeoBERTConfig, NeoBERTForSequenceClassification
from neobert.model.attention import attention
from neobert.model.packing import fixed_layout, padded_layout
from neobert.model.rotary import frequencies, rotate, rotation

SMALL = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "initializer_range": 0.3}  # fmt: skip


@pytest.fixture
def encoder() -> NeoBERT:
    torch.manual_seed(0)
    return NeoBERT(NeoBERTConfig(**SMALL)).eval()


@pytest.fixture
def classifier() -> NeoBERTForSequenceClassification:
    torch.manual_seed(0)
    return NeoBERTForSequenceClassification(NeoBERTConfig(**SMALL, num_labels=3)).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(1, SMALL["vocab_size"], shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_padding_never_influences_a_token(encoder: NeoBERT, side: str) -> None:
    tokens = ids(1, 5)
    before, after = {"right": (0, 3), "left": (3, 0), "both": (2, 1)}[side]
    padding = lambda count: torch.full((1, count), 7)  # noqa: E731  # a real token's number: the mask alone decides
    padded = torch.cat([padding(before), tokens, padding(after)], dim=1)
    mask = torch.tensor([[0] * before + [1] * 5 + [0] * after])
    expected = encoder(tokens).last_hidden_state
    # RoPE knows distances alone, so that even left padding changes nothing.
    found = encoder(padded, mask).last_hidden_state[:, before : before + 5]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_batch_mate_has_no_influence_on_gradients(classifier: NeoBERTForSequenceClassification) -> None:
    tokens, mask = ids(2, 6), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    classifier(tokens, mask).logits[1].sum().backward()
    in_batch = {name: weight.grad.clone() for name, weight in classifier.named_parameters()}
    classifier.zero_grad()
    classifier(tokens[1:, :3]).logits.sum().backward()
    for name, weight in classifier.named_parameters():
        torch.testing.assert_close(in_batch[name], weight.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("more", "fillers"), [(0, 1), (1, 1), (7, 3)])
def test_tokens_and_sequences_that_fill_up_a_layout_change_nothing(
    classifier: NeoBERTForSequenceClassification, pooling: str, side: str, more: int, fillers: int
) -> None:
    classifier.config.classifier_pooling = pooling
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    inputs = {"input_ids": ids(3, 4), "attention_mask": mask if side == "right" else mask.flip(1)}
    found = []
    for layout in (None, fixed_layout(**inputs, tokens=7 + more, fillers=fillers)):
        classifier.zero_grad()
        logits = classifier(**inputs, layout=layout).logits
        logits.square().sum().backward()
        found.append((logits, torch.cat([weight.grad.flatten() for weight in classifier.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_an_example_without_tokens_spreads_no_nan(classifier: NeoBERTForSequenceClassification) -> None:
    tokens, mask = ids(2, 4), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    loss = classifier(tokens, mask, labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight.grad).all() for weight in classifier.parameters())
    torch.testing.assert_close(classifier(tokens, mask).logits[:1], classifier(tokens[:1]).logits, atol=1e-5, rtol=1e-5)


def test_a_batch_of_nothing_but_padding_gives_zeros(encoder: NeoBERT) -> None:
    assert not encoder(ids(2, 4), torch.zeros(2, 4, dtype=torch.int64)).last_hidden_state.any()


def test_rotation_turns_adjacent_pairs_by_position_times_frequency() -> None:
    states = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found = rotate(states, *rotation(torch.tensor([0, 1, 5]), 10000.0 ** (-torch.arange(0, 8, 2) / 8)))
    as_complex = torch.view_as_complex(states.unflatten(-1, (4, 2)))
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    turned = as_complex * torch.exp(1j * torch.tensor([[0.0], [1.0], [5.0]]) * frequencies)
    torch.testing.assert_close(found, torch.view_as_real(turned).flatten(-2))


def test_positions_can_be_given(encoder: NeoBERT) -> None:
    tokens = ids(2, 5)
    expected = encoder(tokens).last_hidden_state
    shifted = encoder(tokens, position_ids=torch.arange(5)[None] + torch.tensor([[0], [9]])).last_hidden_state
    torch.testing.assert_close(shifted, expected, atol=1e-5, rtol=1e-5)
    reversed_order = encoder(tokens, position_ids=torch.arange(5).flip(0)).last_hidden_state
    assert not torch.allclose(reversed_order, expected, atol=1e-2)


def test_weights_have_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        model = NeoBERT(NeoBERTConfig())
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert shapes["encoder.weight"] == (30522, 768)
    assert shapes["transformer_encoder.27.qkv.weight"] == (2304, 768)
    assert shapes["transformer_encoder.27.wo.weight"] == (768, 768)
    assert shapes["transformer_encoder.27.ffn.w12.weight"] == (4096, 768)  # 2 x 2/3 x 3072
    assert shapes["transformer_encoder.27.ffn.w3.weight"] == (768, 2048)
    assert shapes["transformer_encoder.27.attention_norm.weight"] == (768,)
    assert shapes["layer_norm.weight"] == (768,)
    assert not [name for name in shapes if name.endswith("bias")]
    assert 2.2e8 < sum(weight.numel() for weight in model.parameters()) < 2.3e8


@pytest.mark.parametrize(("intermediate", "gated"), [(3072, 2048), (48, 32), (64, 48), (100, 72), (1, 8)])
def test_swiglu_is_two_thirds_wide_up_to_a_multiple_of_eight(intermediate: int, gated: int) -> None:
    assert NeoBERTConfig(intermediate_size=intermediate).gated_size == gated


def test_queries_keys_and_values_are_interleaved_head_by_head(encoder: NeoBERT) -> None:
    block = encoder.transformer_encoder[0]
    states = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(2))
    # As the published code has it: view(batch, length, heads, 3 x head size).chunk(3, -1).
    query, key, value = block.qkv(block.attention_norm(states)).view(1, 4, 2, 36).chunk(3, dim=-1)
    cos, sin = rotation(torch.arange(4), *frequencies(encoder.config))
    turn = lambda each: rotate(each.transpose(1, 2), cos, sin)  # noqa: E731
    mixed = torch.nn.functional.scaled_dot_product_attention(turn(query), turn(key), value.transpose(1, 2))
    segments = padded_layout(torch.zeros(1, 4), None).segments
    found = attention(*block.before_attention(states[0], cos[:, None], sin[:, None]), segments, "sdpa")
    torch.testing.assert_close(found, mixed[0].transpose(0, 1))


@pytest.mark.parametrize(
    ("labels", "target", "loss"),
    [(3, [2, 0], torch.nn.functional.cross_entropy), (1, [0.5, 3.0], torch.nn.functional.mse_loss)],
)
def test_the_loss_follows_the_number_of_labels(labels: int, target: list[float], loss: torch.nn.Module) -> None:
    model = NeoBERTForSequenceClassification(NeoBERTConfig(**SMALL, num_labels=labels)).eval()
    output = model(ids(2, 5), labels=torch.tensor(target))
    expected = loss(output.logits if labels > 1 else output.logits[:, 0], torch.tensor(target))
    torch.testing.assert_close(output.loss, expected)


def test_it_survives_being_saved_and_loaded(classifier: NeoBERTForSequenceClassification, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, NeoBERTForSequenceClassification)
    torch.testing.assert_close(loaded(ids(2, 5)).logits, classifier(ids(2, 5)).logits, atol=0, rtol=0)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), NeoBERTConfig)
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(encoder, NeoBERT)
    torch.testing.assert_close(encoder.encoder.weight, classifier.model.encoder.weight, atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_changes_no_gradient(classifier: NeoBERTForSequenceClassification) -> None:
    classifier.config.classifier_dropout = classifier.dropout.p = 0.0
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            classifier.gradient_checkpointing_enable()
        classifier.train().zero_grad()
        classifier(ids(2, 5), labels=torch.tensor([0, 2])).loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in classifier.parameters()]))
    assert all(block.gradient_checkpointing for block in classifier.model.transformer_encoder)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_too_many_tokens_are_refused_with_the_limit() -> None:
    model = NeoBERT(NeoBERTConfig(**SMALL, max_position_embeddings=4))
    with pytest.raises(ValueError, match="5 tokens, but the model takes at most 4"):
        model(ids(1, 5))


def test_a_size_that_rope_cannot_split_is_refused() -> None:
    with pytest.raises(Exception, match="no multiple of 2 x num_attention_heads"):
        NeoBERTConfig(hidden_size=36, num_attention_heads=4)
