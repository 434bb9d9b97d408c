"""Plain products are attention, its gradients included."""

from __future__ import annotations

import pytest
import torch

from neobert.model.attention import Segments, attention, attention_of_first
from neobert.model.plain_attention import plain_attention

LENGTHS = [2, 3, 3, 7]
RUNS = [(2, 1), (3, 2), (7, 1)]


def tensors(dtype: torch.dtype = torch.float32, first: int = 15) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(size, 2, 4, dtype=dtype, requires_grad=True) for size in (first, 15, 15)]


def segments() -> Segments:
    return Segments(torch.tensor([0, *LENGTHS]).cumsum(0, dtype=torch.int32), 15, LENGTHS)


def test_without_dropout_it_is_that_of_pytorch() -> None:
    inputs = tensors()
    torch.testing.assert_close(plain_attention(*inputs, RUNS, RUNS, 0.0), attention(*inputs, segments(), "sdpa"))


@pytest.mark.parametrize("drop", [0.0, 0.3])
@pytest.mark.parametrize("first", [False, True])
def test_gradients_are_those_of_the_function(drop: float, first: bool) -> None:
    queries = [(1, count) for _, count in RUNS] if first else RUNS

    def function(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same are dropped at each call
        return plain_attention(*inputs, queries, RUNS, drop)

    assert torch.autograd.gradcheck(function, tensors(torch.float64, first=4 if first else 15))


def test_first_tokens_ask_as_they_do_among_all() -> None:
    query, key, value = tensors()
    starts = segments().cu_seqlens[:-1]
    of_all = attention(query, key, value, segments(), "sdpa")
    torch.testing.assert_close(attention_of_first(query[starts], key, value, segments()), of_all[starts])


def test_dropout_leaves_the_mean_as_it_is() -> None:
    inputs = tensors()
    torch.manual_seed(2)
    found = torch.stack([attention(*inputs, segments(), "sdpa", 0.2) for _ in range(4000)])
    plain = attention(*inputs, segments(), "sdpa")
    assert not torch.equal(found[0], found[1])
    error = found.std(dim=0) / 4000**0.5
    assert ((found.mean(dim=0) - plain).abs() <= 5 * error + 1e-6).all()


def test_in_half_precision_under_autocast() -> None:
    inputs = [x.detach().bfloat16().requires_grad_() for x in tensors()]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(*inputs, segments(), "sdpa", 0.1)
    mixed.float().sum().backward()
    assert mixed.dtype == torch.bfloat16
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 for x in inputs)
