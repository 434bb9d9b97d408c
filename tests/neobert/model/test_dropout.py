"""Dropout with little randomness is dropout."""

from __future__ import annotations

import pytest
import torch

from neobert.model.dropout import Dropout, dropout, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_that_share_is_dropped_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = dropout(torch.ones(400, 1001, dtype=dtype), p)
    dropped = (values == 0).float()
    spread = (p * (1 - p) / values.numel()) ** 0.5
    assert abs(dropped.mean().item() - p) < 4 * spread
    assert values[values != 0].unique().item() == pytest.approx(
        1 / (1 - p), rel=0.01 if dtype == torch.bfloat16 else 1e-4
    )
    # Of four neighbours that share a drawn number, each is dropped by itself.
    pairs = (dropped[:, :1000:4] * dropped[:, 1:1000:4]).mean().item()
    assert pairs == pytest.approx(p * p, abs=4 * (p * p / 100_000) ** 0.5)
    assert dropped.mean(dim=0).std().item() == pytest.approx((p * (1 - p) / 400) ** 0.5, rel=0.15)


def test_what_is_dropped_has_no_gradient_and_the_rest_its_scale() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 5, requires_grad=True)
    out = dropout(values, 0.4)
    out.sum().backward()
    torch.testing.assert_close(values.grad, (out != 0).float() / 0.6, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 6), (1.0, 0)])
def test_none_and_all(p: float, kept: int) -> None:
    assert int((dropout(torch.ones(2, 3), p) != 0).sum()) == kept


def test_of_a_view_that_is_not_contiguous() -> None:
    torch.manual_seed(0)
    values = torch.arange(1.0, 13).reshape(3, 4).t()
    out = dropout(values, 0.5)
    torch.testing.assert_close(out[out != 0], values[out != 0] * 2, atol=1e-3, rtol=1e-3)


def test_the_same_state_of_randomness_drops_the_same() -> None:
    values = torch.ones(1000)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = dropout(values, 0.5), dropout(values, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout(values, 0.5), first)
    assert not torch.equal(first, second)


def test_a_model_has_it_in_training_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    replace_dropout(model)
    assert isinstance(model[1], Dropout)
    inputs = torch.randn(50, 4)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
