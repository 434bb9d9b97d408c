"""Operations are as many as PyTorch counts, seconds are those that went by, and unknown GPUs have no peak."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM
from neobert.training import metering
from neobert.training.metering import Stopwatch, flops, known_peak, peak_flops, peak_memory

CPU = torch.device("cpu")
CONFIG = NeoBERTConfig(
    vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=30
)  # fmt: skip


def counted(lengths: list[int], masked: int) -> tuple[int, int]:
    """What PyTorch counts for packed sequences of these lengths: in the forward pass alone, and with the backward."""
    torch.manual_seed(0)
    model = NeoBERTForMaskedLM(CONFIG)
    model.model.attn_backend = "sdpa"
    tokens = sum(lengths)
    labels = torch.full((1, tokens), -100)
    labels[0, torch.randperm(tokens)[:masked]] = 7
    batch = {
        "input_ids": torch.randint(5, 60, (1, tokens)),
        "labels": labels,
        "cu_seqlens": torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32),
        "lengths": lengths,
        "max_seqlen": max(lengths),
    }
    # Attention of plain matrix products: PyTorch counts no fused ones on CPUs, and these compute the scores only once.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as both:
            model(**batch).loss_sum.backward()
        model.requires_grad_(False)
        with FlopCounterMode(display=False) as forward:
            model(**batch)
    return forward.get_total_flops(), both.get_total_flops()


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), share=st.floats(0.05, 1))
def test_a_step_has_as_many_operations_as_are_counted_and_three_times_those_of_its_forward_pass(
    lengths: list[int], share: float
) -> None:
    tokens, masked = sum(lengths), max(1, int(share * sum(lengths)))
    forward, both = counted(lengths, masked)
    assert flops(CONFIG, tokens, sum(length**2 for length in lengths), masked) == both == 3 * forward


def test_attention_grows_with_the_square_of_the_length_and_all_else_with_the_tokens() -> None:
    assert flops(CONFIG, 8, 64, 2) - flops(CONFIG, 8, 32, 2) == 3 * 4 * 32 * 16 * 3
    assert flops(CONFIG, 16, 0, 4) == 2 * flops(CONFIG, 8, 0, 2)


def test_on_a_cpu_a_stopwatch_adds_up_the_seconds_of_each_part() -> None:
    watch = Stopwatch(CPU)
    began = time.perf_counter()
    for _ in range(2):
        with watch.time("data"):
            time.sleep(0.02)
    start = watch.mark()
    time.sleep(0.01)
    watch.add("forward", start, watch.mark())
    whole = time.perf_counter() - began
    found = watch.read()
    assert list(found) == ["data", "forward"]
    assert found["data"] >= 0.04
    assert found["forward"] >= 0.01
    assert sum(found.values()) <= whole
    assert watch.read() == {}


def test_time_is_taken_even_when_a_part_fails() -> None:
    watch = Stopwatch(CPU)
    with pytest.raises(StopIteration), watch.time("data"):
        raise StopIteration
    assert list(watch.read()) == ["data"]


class Event:
    """Stands in for `torch.cuda.Event`: the device comes to it only when it is waited for."""

    now = 0.0

    def __init__(self, enable_timing: bool):
        assert enable_timing
        self.at: float | None = None
        self.reached = False

    def record(self) -> None:
        self.at = Event.now

    def synchronize(self) -> None:
        self.reached = True

    def elapsed_time(self, end: Event) -> float:
        assert end.reached, "CUDA error: device not ready"
        assert self.at is not None
        assert end.at is not None
        return (end.at - self.at) * 1000


def test_on_a_gpu_each_end_is_waited_for_in_whichever_order_parts_were_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch(torch.device("cuda"))
    marks = []
    for Event.now in (1.0, 1.5, 4.0):
        marks.append(watch.mark())
    watch.add("backward", marks[1], marks[2])  # the later one first, as a trainer does that learns of both at the end
    watch.add("forward", marks[0], marks[1])
    assert watch.read() == pytest.approx({"backward": 2.5, "forward": 0.5})


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("A100-SXM4-40GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 835.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A40", 149.7),
        ("Tesla V100-SXM2-32GB", 125.0),
    ],
)
def test_the_peak_of_a_gpu_is_known_by_its_name(name: str, tflops: float) -> None:
    assert known_peak(name) == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    ["NVIDIA RTX A4000", "NVIDIA A400", "NVIDIA L40", "NVIDIA A10G", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "Radeon", ""],
)
def test_a_gpu_with_another_name_and_a_part_of_one_have_no_known_peak(name: str) -> None:
    assert known_peak(name) is None


def test_a_given_peak_counts_on_every_device_and_a_cpu_has_none_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(CPU, 2.5) == 2.5e12
    assert peak_flops(CPU, None) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert peak_flops(torch.device("cuda", 1), None) == 312e12
    assert peak_flops(torch.device("cuda", 1), 7.0) == 7e12


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_measured_peak_is_what_products_reach_here(monkeypatch: pytest.MonkeyPatch, kind: torch.dtype) -> None:
    monkeypatch.setattr(metering, "MEASURED_SECONDS", 0.1)
    peak = metering.measured_peak(CPU, kind)
    one, seconds = torch.ones(512, 512, dtype=kind), []
    for _ in range(10):
        start = time.perf_counter()
        one @ one
        seconds.append(time.perf_counter() - start)
    assert peak / 10 < 2 * 512**3 / min(seconds) < peak * 10


@pytest.mark.skipif(sys.platform != "linux", reason="Linux is missing: run `make test` there")
def test_peak_memory_of_a_process_is_in_bytes() -> None:
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    seen = int(told.split()[1]) * 1024
    assert 0.99 * seen < peak_memory(CPU) < 100 * seen  # it may also have seen the process that started this one
