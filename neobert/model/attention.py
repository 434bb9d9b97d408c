"""The one place where attention is computed: bidirectional, over sequences that lie end to end.

Nothing is padded here. A batch is one row of tokens, and `Segments` says where each sequence of it begins and ends; a
token attends to all tokens of its own sequence, and to no other. All backends compute the same function (exact
block-diagonal attention), with the kernels of

- `sdpa`: torch.nn.functional.scaled_dot_product_attention, once for each run of equally long sequences; everywhere
- `varlen`: torch.nn.attention.varlen (FlashAttention over `cu_seqlens`), or flash-attn's own; 16-bit floats on GPUs
- `xformers`: memory_efficient_attention with a BlockDiagonalMask; GPUs
- `flex`: torch.nn.attention.flex_attention, compiled; GPUs
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from neobert.model.plain_attention import Buckets, batches, plain_attention

SHORT, SCORES_FIT = 32, 2048
"""Tokens of a sequence: see `_of_one_length`. All scores of 2,048 tokens take 8 MB a head."""

BACKENDS = ("auto", "sdpa", "varlen", "xformers", "flex")


class UnknownBackend(ValueError):
    """No such backend, or not on this device or with this precision; the message says what would do."""


class Segments:
    """Where the sequences in a row of tokens lie.

    `cu_seqlens` is (sequences + 1,), int32, on the tokens' device: 0, and then where each one ends, the last at the
    number of tokens. `lengths` are the same on the host, with the shortest first wherever speed matters: `sdpa` makes
    one call for each run of equal ones. Where they are not given and are needed, the host waits for the device.
    `at_most` is a length that none exceeds; with it, `varlen` needs no `lengths`.
    """

    def __init__(self, cu_seqlens: Tensor, tokens: int, lengths: Sequence[int] | None = None, at_most: int = 0):
        self.cu_seqlens = cu_seqlens
        self.tokens = tokens
        self._lengths = lengths
        self._at_most = at_most

    @property
    def lengths(self) -> Sequence[int]:
        if self._lengths is None:
            self._lengths = self.cu_seqlens.diff().tolist()
        return self._lengths

    @property
    def longest(self) -> int:
        """At most this long is every sequence."""
        return self._at_most or max(self.lengths, default=0)

    @cached_property
    def firsts(self) -> Tensor:
        """(sequences,): where the first token of each is; of an empty one, some other token."""
        return self.cu_seqlens[:-1].clamp(max=self.tokens - 1)

    @cached_property
    def one_each(self) -> Tensor:
        """The `cu_seqlens` of the first tokens alone."""
        return torch.arange(len(self.cu_seqlens), dtype=torch.int32, device=self.cu_seqlens.device)

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(length, how many in a row) for each run of equally long sequences."""
        return [(length, sum(1 for _ in group)) for length, group in groupby(self.lengths)]

    @cached_property
    def buckets(self) -> Buckets:
        """For `plain_attention`."""
        return Buckets.of(self.lengths)

    @cached_property
    def positions(self) -> Tensor:
        """(tokens,): the place of each token in its own sequence, from 0."""
        return torch.arange(self.tokens, device=self.cu_seqlens.device) - self._of_each_token(self.cu_seqlens[:-1])

    @cached_property
    def flex_mask(self) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        numbers = self._of_each_token(torch.arange(len(self.cu_seqlens) - 1, device=self.cu_seqlens.device))

        def same(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return numbers[query] == numbers[key]

        return create_block_mask(same, None, None, self.tokens, self.tokens, device=self.cu_seqlens.device)

    @cached_property
    def xformers_mask(self) -> Any:
        from xformers.ops.fmha import BlockDiagonalMask

        return BlockDiagonalMask.from_seqlens(list(self.lengths), device=self.cu_seqlens.device)

    def _of_each_token(self, of_each_sequence: Tensor) -> Tensor:
        return torch.repeat_interleave(of_each_sequence, self.cu_seqlens.diff(), output_size=self.tokens)


def attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments, backend: str, drop: float = 0.0) -> Tensor:
    """Of (tokens, heads, head size) tensors, whose sequences are `segments`; returns the same shape.

    `backend` is one of `BACKENDS` but not `auto`: see `choose`. `drop` is the dropout of attention's probabilities, for
    `sdpa` and `varlen` alone: NeoBERT has none, but other models that are trained here do.
    """
    return _KERNELS[backend](query, key, value, segments, drop, False)


def attention_of_first(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, drop: float = 0.0, backend: str = "sdpa"
) -> Tensor:
    """Of each sequence's first token alone: `query` and what is returned are (sequences, heads, head size).

    On CPUs `first_attention` does it with less.
    """
    return _KERNELS[backend](query, key, value, segments, drop, True)


def choose(backend: str, device: torch.device, dtype: torch.dtype, head_size: int) -> str:
    """The backend to use where `backend` is asked for; raises `UnknownBackend` if it cannot be used here."""
    if backend not in BACKENDS:
        raise UnknownBackend(f"{backend!r} is no attention backend; there are {', '.join(BACKENDS)}")
    if backend == "auto":
        return next(name for name in ("varlen", "xformers", "sdpa") if fault(name, device, dtype, head_size) is None)
    found = fault(backend, device, dtype, head_size)
    if found:
        raise UnknownBackend(f"the attention backend {backend} {found}; `auto` chooses one that works")
    return backend


def fault(backend: str, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """Why a backend cannot be used for such tensors, or None if it can."""
    if backend == "sdpa":
        return None
    if device.type != "cuda":
        return f"needs a GPU, and this is {device.type}"
    if head_size % 8 and backend in ("varlen", "xformers"):
        return f"takes head sizes that are multiples of 8, and this one is {head_size}"
    if backend == "varlen":
        if dtype not in (torch.bfloat16, torch.float16):
            return f"takes bf16 or fp16, and not {str(dtype).removeprefix('torch.')}"
        if head_size > 256:
            return f"takes head sizes of up to 256, and this one is {head_size}"
        if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
            return "needs a GPU of the Ampere generation or newer"
        return None if _varlen() else "needs torch 2.10 or flash-attn"
    if backend == "xformers" and importlib.util.find_spec("xformers") is None:
        return "needs the package xformers"
    if backend == "xformers":
        return _xformers_fault()
    return None


def _sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments, drop: float, of_first: bool) -> Tensor:
    runs = segments.runs
    if not runs:
        return torch.empty_like(query)
    if query.device.type == "cpu" and drop and segments.longest <= SCORES_FIT and not of_first:
        return plain_attention(query, key, value, segments.buckets, drop)
    queries = [(1, count) for _, count in runs] if of_first else runs
    done = []
    for parts in zip(batches(query, queries), batches(key, runs), batches(value, runs), strict=True):
        done.append(_of_one_length(*parts, drop).transpose(1, 2).flatten(0, 1))
    return done[0] if len(done) == 1 else torch.cat(done)


def _of_one_length(query: Tensor, key: Tensor, value: Tensor, drop: float) -> Tensor:
    """Of (count, heads, length, head size).

    On CPUs, PyTorch's kernel for 16-bit floats takes two to nine times as long as the same in other words (forward and
    backward, 2.13 with AVX-512): short sequences are computed in float32, and those of up to `SCORES_FIT` tokens as
    plain products.
    """
    length = key.shape[-2]
    if query.device.type != "cpu" or query.dtype.itemsize > 2 or length > SCORES_FIT:
        return scaled_dot_product_attention(query, key, value, dropout_p=drop)
    if length <= SHORT:
        with torch.autocast("cpu", enabled=False):
            return scaled_dot_product_attention(query.float(), key.float(), value.float()).to(value.dtype)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    return torch.matmul(scores.softmax(dim=-1), value)  # which adds up in float32 by itself


def _flash(query: Tensor, key: Tensor, value: Tensor, segments: Segments, drop: float, of_first: bool) -> Tensor:
    kernel = _varlen()
    assert kernel is not None  # `choose` has seen to it
    asking, most = (segments.one_each, 1) if of_first else (segments.cu_seqlens, segments.longest)
    return kernel(query, key, value, asking, segments.cu_seqlens, most, segments.longest, drop)


def _xformers(query: Tensor, key: Tensor, value: Tensor, segments: Segments, drop: float, of_first: bool) -> Tensor:
    _refuse("xformers", drop, of_first)
    from xformers.ops import memory_efficient_attention

    mixed: Tensor = memory_efficient_attention(query[None], key[None], value[None], attn_bias=segments.xformers_mask)
    return mixed[0]


def _flex(query: Tensor, key: Tensor, value: Tensor, segments: Segments, drop: float, of_first: bool) -> Tensor:
    _refuse("flex", drop, of_first)
    per_head = (x.transpose(0, 1)[None] for x in (query, key, value))
    mixed: Tensor = _compiled_flex()(*per_head, block_mask=segments.flex_mask)
    return mixed[0].transpose(0, 1)


def _refuse(backend: str, drop: float, of_first: bool) -> None:
    if drop or of_first:
        raise ValueError(f"the attention backend {backend} knows no dropout, and computes all tokens")


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Segments, float, bool], Tensor]] = {
    "sdpa": _sdpa,
    "varlen": _flash,
    "xformers": _xformers,
    "flex": _flex,
}


@functools.cache
def _varlen() -> Callable[..., Tensor] | None:
    """FlashAttention over cu_seqlens: torch's own, or flash-attn's.

    As (query, key, value, cu_seqlens of queries, of keys, longest of queries, of keys, dropout).
    """
    if importlib.util.find_spec("torch.nn.attention.varlen"):
        return _torch_varlen
    if importlib.util.find_spec("flash_attn"):
        from flash_attn import flash_attn_varlen_func

        return flash_attn_varlen_func
    return None


def _torch_varlen(query: Tensor, key: Tensor, value: Tensor, *more: Any) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    *where, drop = more
    if not drop:
        return varlen_attn(query, key, value, *where)
    # What varlen_attn calls, too, which itself knows no dropout.
    return torch.ops.aten._flash_attention_forward(query, key, value, *where, drop, False, False)[0]


@functools.cache
def _xformers_fault() -> str | None:
    """The compiled part of xformers fits one version of torch; without it there is nothing to call."""
    from xformers.ops import fmha

    if any(operator.is_available() for operator in (fmha.flash.FwOp, fmha.cutlass.FwOp)):
        return None
    return "has no kernels for this torch: `python -m xformers.info` tells which it was built for"


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
