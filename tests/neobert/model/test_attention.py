"""Attention over sequences that lie end to end: exact in every backend that this machine has."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from benchmarks import gpu_checks
from neobert.config.extras import install
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM
from neobert.model.attention import BACKENDS, Segments, UnknownBackend, attention, choose, fault
from neobert.model.modeling import IGNORED

CPU = torch.device("cpu")
LENGTHS = [3, 7, 7, 1, 12]
SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "initializer_range": 0.3}  # fmt: skip


def segments(lengths: list[int]) -> Segments:
    return Segments(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), sum(lengths))


def here() -> list[str]:
    """The backends that can be trained with on this machine's CPU."""
    return [name for name in BACKENDS[1:] if fault(name, CPU, torch.float32, 16) is None]


@pytest.mark.parametrize("backend", here())
@pytest.mark.parametrize("lengths", [LENGTHS, sorted(LENGTHS), [30], [5, 5, 5], [0, 4]])
def test_it_is_softmax_over_the_tokens_of_the_same_sequence(backend: str, lengths: list[int]) -> None:
    query, key, value = torch.randn(3, sum(lengths), 2, 16, generator=torch.Generator().manual_seed(0))
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    scores = torch.einsum("ihd,jhd->hij", query, key) / 4
    scores = scores.masked_fill(numbers[:, None] != numbers, -torch.inf)
    expected = torch.einsum("hij,jhd->ihd", scores.softmax(-1), value)
    torch.testing.assert_close(attention(query, key, value, segments(lengths), backend), expected)


@pytest.mark.parametrize("backend", here())
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_packed_equals_padded_equals_one_at_a_time(backend: str, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = NeoBERTForMaskedLM(NeoBERTConfig(**SHAPE)).to(kind)
    model.model.attn_backend = backend
    texts = [torch.randint(1, 50, (length,)) for length in LENGTHS]
    answers = [torch.where(torch.rand(len(text)) < 0.4, text, IGNORED) for text in texts]
    width = max(LENGTHS)
    pad = lambda each, fill: torch.stack([torch.nn.functional.pad(x, (0, width - len(x)), value=fill) for x in each])  # noqa: E731
    mask = pad([torch.ones_like(text) for text in texts], 0)
    cu_seqlens = segments(LENGTHS).cu_seqlens

    def of_packed() -> tuple[torch.Tensor, torch.Tensor]:
        labels, ids = torch.cat(answers)[None], torch.cat(texts)[None]
        logits = model(ids, cu_seqlens=cu_seqlens).logits[0]
        return model(ids, labels=labels, cu_seqlens=cu_seqlens, lengths=LENGTHS).loss_sum, logits

    def of_padded() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(pad(texts, 0), mask).logits[mask.bool()]
        return model(pad(texts, 0), mask, labels=pad(answers, IGNORED)).loss_sum, logits

    def of_each() -> tuple[torch.Tensor, torch.Tensor]:
        losses = [model(text[None], labels=answer[None]).loss_sum for text, answer in zip(texts, answers, strict=True)]
        return sum(losses), torch.cat([model(text[None]).logits[0] for text in texts])

    found = {}
    for way in (of_packed, of_padded, of_each):
        model.zero_grad()
        loss, logits = way()
        loss.backward()
        gradients = torch.cat([weight.grad.flatten().float() for weight in model.parameters()])
        found[way.__name__] = loss.detach(), logits.detach(), gradients
    rounding = 1e-5 if kind is torch.float32 else 0.05
    for way in ("of_padded", "of_each"):
        for packed, other in zip(found["of_packed"], found[way], strict=True):
            assert (packed - other).abs().max() <= rounding * other.abs().max(), way


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("backend", "precision"),
    [pair for pair in product(BACKENDS[1:], gpu_checks.KINDS) if pair != ("varlen", "float32")],  # which it refuses
)
def test_on_a_gpu_packed_equals_padded_equals_one_at_a_time(backend: str, precision: str) -> None:
    """Outputs and gradients, which must also be those of float32 on a CPU."""
    device, kind = torch.device("cuda"), gpu_checks.KINDS[precision]
    if reason := fault(backend, device, kind, head_size=64):
        pytest.skip(f"{backend} {reason}: {install('gpu')}, on a machine with a GPU of the Ampere generation or newer")
    reference = gpu_checks.outputs_and_gradients(gpu_checks.small_model(CPU, "sdpa"), "packed", None)
    differences = gpu_checks.differences_of(device, backend, kind, reference)
    assert max(differences.values()) <= gpu_checks.ROUNDING[kind], differences


@pytest.mark.parametrize("length", [5, 100])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_the_precision_is_as_exact_on_a_cpu_whichever_way_a_length_takes(length: int, autocast: bool) -> None:
    inputs = torch.randn(3, 2 * length, 2, 16, generator=torch.Generator().manual_seed(0))
    outcome = torch.randn(2 * length, 2, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for kind in (torch.float32, torch.bfloat16):
        parts = inputs.to(kind).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and kind is torch.bfloat16):
            mixed = attention(*parts, segments([length, length]), "sdpa")
        assert mixed.dtype == kind
        (gradient,) = torch.autograd.grad(mixed, parts, outcome.to(kind))
        found.append((mixed.float(), gradient.float()))
    for half, whole in zip(found[1], found[0], strict=True):
        assert (half - whole).norm() < 0.01 * whole.norm()


def test_older_gpus_have_no_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (((7, 5), True), ((8, 0), False), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        found = fault("varlen", torch.device("cuda"), torch.float16, 64)
        assert (found == "needs a GPU of the Ampere generation or newer") == expected


def test_positions_begin_anew_with_each_sequence() -> None:
    assert segments([2, 0, 3]).positions.tolist() == [0, 1, 0, 1, 2]


def test_equally_long_neighbours_share_a_call() -> None:
    assert segments([3, 7, 7, 1]).runs == [(3, 1), (7, 2), (1, 1)]


def test_auto_takes_what_works_everywhere_on_a_cpu() -> None:
    assert choose("auto", CPU, torch.float32, 64) == "sdpa"


@pytest.mark.parametrize(
    ("backend", "device", "kind", "head_size", "message"),
    [
        ("varlen", "cpu", torch.float32, 64, "varlen needs a GPU, and this is cpu; `auto` chooses one that works"),
        ("xformers", "cpu", torch.float32, 64, "xformers needs a GPU"),
        ("flex", "cpu", torch.float32, 64, "flex needs a GPU"),
        ("flash", "cpu", torch.float32, 64, "'flash' is no attention backend; there are auto, sdpa, varlen"),
        ("varlen", "cuda", torch.float32, 64, "varlen takes bf16 or fp16, and not float32"),
        ("varlen", "cuda", torch.bfloat16, 12, "takes head sizes that are multiples of 8, and this one is 12"),
        ("varlen", "cuda", torch.bfloat16, 264, "takes head sizes of up to 256, and this one is 264"),
    ],
)
def test_a_backend_that_cannot_be_used_is_refused_with_the_reason(
    backend: str, device: str, kind: torch.dtype, head_size: int, message: str
) -> None:
    with pytest.raises(UnknownBackend) as refused:
        choose(backend, torch.device(device), kind, head_size)
    assert message in str(refused.value)
