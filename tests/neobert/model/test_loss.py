"""The loss in pieces is the loss as a whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from neobert.model.loss import linear_cross_entropy


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
@pytest.mark.parametrize("with_bias", [True, False])
def test_loss_and_gradients_are_those_of_cross_entropy(chunk: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    states, weight, bias = torch.randn(7, 8), torch.randn(20, 8), torch.randn(20) if with_bias else None
    labels = torch.randint(0, 20, (7,))
    leaves = [each.requires_grad_() for each in (states, weight, bias) if each is not None]

    expected = cross_entropy(linear(states, weight, bias), labels, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, leaves)
    found, correct = linear_cross_entropy(states, weight, bias, labels, chunk)
    torch.testing.assert_close(found, expected)
    assert correct == (linear(states, weight, bias).argmax(-1) == labels).sum()
    for one, other in zip(torch.autograd.grad(found * 0.3, leaves), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_masked_token_it_is_zero_and_so_are_the_gradients() -> None:
    states, weight = torch.randn(0, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    loss, _ = linear_cross_entropy(states, weight, None, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not weight.grad.any()


def test_it_follows_autocast_and_keeps_the_gradients_in_the_weights_precision() -> None:
    torch.manual_seed(0)
    states, weight, labels = torch.randn(9, 8), torch.randn(20, 8, requires_grad=True), torch.randint(0, 20, (9,))
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = linear_cross_entropy(states, weight, None, labels, 4)
        expected = cross_entropy(linear(states, weight).float(), labels, reduction="sum")
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weight)[0], atol=0.05, rtol=0.05)
