"""Plain products are attention, its gradients included."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from neobert.model import plain_attention as module
from neobert.model.attention import Segments, attention, attention_of_first
from neobert.model.plain_attention import Buckets, plain_attention

LENGTHS = [2, 3, 3, 7]


def tensors(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(15, 2, 4, dtype=dtype, requires_grad=True) for _ in range(3)]


def segments(lengths: Sequence[int] = LENGTHS) -> Segments:
    return Segments(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), 15, lengths)


@pytest.fixture(params=[0, 3, 1000], ids=["a call for each length", "some together", "all together"])
def buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Buckets:
    """By what a call costs."""
    monkeypatch.setattr(module, "CALL", request.param)
    found = Buckets.of(LENGTHS)
    assert len(found.runs) == {0: 3, 3: 2, 1000: 1}[request.param]
    return found


def test_padding_is_between_tokens_that_keep_their_order(buckets: Buckets) -> None:
    tokens = torch.arange(15)
    padded = buckets.tokens.there(tokens)
    assert len(padded) == sum(length * count for length, count in buckets.runs)
    assert torch.equal(buckets.tokens.back(padded), tokens)
    hidden = [torch.zeros(count, length, dtype=torch.bool) if found is None else found
              for (length, count), found in zip(buckets.runs, buckets.hidden, strict=True)]  # fmt: skip
    assert sum(int((~each).sum()) for each in hidden) == 15


def test_heads_are_sorted_within_each_run(buckets: Buckets) -> None:
    """As products of matrices, one of each head, want them."""
    tokens = torch.arange(15 * 2).view(15, 2)  # two heads
    expected = [
        part.view(count, length, 2).transpose(1, 2).flatten()
        for part, (length, count) in zip(
            buckets.tokens.there(tokens).split([length * count for length, count in buckets.runs]),
            buckets.runs, strict=True,
        )
    ]  # fmt: skip
    move = buckets.of_heads(2)
    assert torch.equal(move.there(tokens.flatten()), torch.cat(expected))
    assert torch.equal(move.back(torch.cat(expected)), tokens.flatten())
    assert buckets.of_heads(2) is move


@pytest.mark.parametrize("lengths", [[7, 3, 2, 3], [15], [1] * 15])
def test_sequences_may_lie_in_any_order(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL", 1000)
    query, key, value = (x.detach() for x in tensors())
    its = segments(lengths)
    expected = attention(query, key, value, its, "sdpa")
    torch.testing.assert_close(plain_attention(query, key, value, Buckets.of(lengths), 0.0), expected)


def test_without_dropout_it_is_that_of_pytorch(buckets: Buckets) -> None:
    inputs = tensors()
    torch.testing.assert_close(plain_attention(*inputs, buckets, 0.0), attention(*inputs, segments(), "sdpa"))


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_gradients_are_those_of_the_function(buckets: Buckets, drop: float) -> None:
    def function(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same are dropped at each call
        return plain_attention(*inputs, buckets, drop)

    assert torch.autograd.gradcheck(function, tensors(torch.float64))


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
