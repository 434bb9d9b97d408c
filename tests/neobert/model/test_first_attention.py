"""First tokens attend to the same, whether there are keys and values or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neobert.model import plain_attention
from neobert.model.attention import Segments, attention_of_first
from neobert.model.first_attention import first_attention

LENGTHS = [2, 3, 3, 7]


@pytest.fixture(params=[0, 1000], ids=["a call for each length", "all together"])
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Segments:
    monkeypatch.setattr(plain_attention, "CALL", request.param)
    return Segments(torch.tensor([0, *LENGTHS]).cumsum(0, dtype=torch.int32), 15, LENGTHS)


def inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A query of two heads, states, and weights and biases of keys and of values."""
    torch.manual_seed(0)
    sizes = [(4, 2, 4), (15, 6), (8, 6), (8,), (8, 6), (8,)]
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


def folded(segments: Segments, drop: float, query: Tensor, states: Tensor, *weights: Tensor) -> Tensor:
    layers = [nn.Linear(6, 8), nn.Linear(6, 8)]
    for layer, weight, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
    return first_attention(query, states, *layers, segments, drop)


def test_it_is_attention_and_so_are_all_gradients(segments: Segments) -> None:
    one, other = inputs(), inputs()
    query, states, *weights = other
    key, value = (nn.functional.linear(states, *each).unflatten(-1, (2, 4)) for each in (weights[:2], weights[2:]))
    expected = attention_of_first(query, key, value, segments)
    found = folded(segments, 0.0, *one)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    for mixed in (expected, found):
        (mixed * torch.arange(mixed.numel()).view_as(mixed)).sum().backward()
    for mine, its in zip(one, other, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-12, rtol=1e-10)


def test_gradients_are_those_of_the_function_with_dropout(segments: Segments) -> None:
    def function(*given: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same are dropped at each call
        return folded(segments, 0.3, *given)

    assert torch.autograd.gradcheck(function, inputs())


def test_dropout_leaves_the_mean_as_it_is(segments: Segments) -> None:
    given = [x.detach() for x in inputs(torch.float32)]
    torch.manual_seed(2)
    found = torch.stack([folded(segments, 0.2, *given) for _ in range(4000)])
    assert not torch.equal(found[0], found[1])
    error = found.std(dim=0) / 4000**0.5
    assert ((found.mean(dim=0) - folded(segments, 0.0, *given)).abs() <= 5 * error + 1e-6).all()


def test_in_half_precision_under_autocast(segments: Segments) -> None:
    query, *given = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = folded(segments, 0.1, query.bfloat16(), *given)
    found.float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given)


def test_without_texts_there_is_nothing() -> None:
    _, _, *weights = inputs()
    nothing = Segments(torch.zeros(1, dtype=torch.int32), 0, [])
    query, states = torch.empty(0, 2, 4, dtype=torch.float64), torch.empty(0, 6, dtype=torch.float64)
    assert folded(nothing, 0.1, query, states, *weights).shape == (0, 2, 4)
