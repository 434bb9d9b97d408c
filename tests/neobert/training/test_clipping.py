"""Gradients clipped within the optimizer's step are those that are clipped before it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import accelerate
import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW

from neobert.training.clipping import can_clip_in_step, clip_in_step
from neobert.training.trainer import Trainer


def with_gradients(seed: int, net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    next(net.parameters()).grad = None  # of a weight that no output depends on


@pytest.mark.parametrize("limit", [0.5, 1000.0])
def test_steps_and_norms_are_the_same(limit: float) -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    other = copy.deepcopy(one)
    # With a large epsilon, for AdamW otherwise hides a scale that is wrong.
    first, second = (AdamW(net.parameters(), lr=0.1, eps=1.0, fused=True) for net in (one, other))
    for seed in range(3):
        with_gradients(seed, one)
        with_gradients(seed, other)
        torch.testing.assert_close(
            clip_in_step(first, one.parameters(), limit), clip_grad_norm_(other.parameters(), limit)
        )
        first.step()
        second.step()
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, its, atol=1e-7, rtol=1e-7)  # the scale is in float32


def test_gradients_are_not_written_before_the_step() -> None:
    net = nn.Linear(3, 4)
    optimizer = AdamW(net.parameters(), fused=True)
    with_gradients(0, net)
    assert net.bias.grad is not None
    before = net.bias.grad.clone()
    clip_in_step(optimizer, net.parameters(), 0.1)
    assert torch.equal(net.bias.grad, before)


def test_a_gradient_that_is_no_number_is_one_after_the_step_neither() -> None:
    net = nn.Linear(3, 4)
    optimizer = AdamW(net.parameters(), fused=True)
    with_gradients(0, net)
    net.bias.grad = torch.full_like(net.bias, torch.nan)
    assert clip_in_step(optimizer, net.parameters(), 1.0).isnan()
    optimizer.step()
    assert net.bias.isnan().all()


def test_other_optimizers_get_gradients_that_are_clipped() -> None:
    weights = list(nn.Linear(3, 4).parameters())
    assert can_clip_in_step(AdamW(weights, fused=True))
    for other in (AdamW(weights), Adam(weights, fused=True), SGD(weights)):
        assert not can_clip_in_step(other)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_fine_tuning_on_cpus_is_the_same_as_with_its_own_clipping(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    def logs(name: str) -> list[dict[str, float]]:
        settings = ["task_name=rte", "data.generated=32", f"model.name_or_path={tiny_bert}", "data.max_length=32",
                    "trainer.use_cpu=true", "trainer.num_train_epochs=2", "trainer.logging_steps=1",
                    "trainer.per_device_train_batch_size=8", "trainer.gradient_clipping=0.1", "optimizer.eps=1.0",
                    f"trainer.gradient_accumulation_steps={pieces}", "optimizer.lr=1.0"]  # fmt: skip
        assert neobert("glue", *settings, "--output-dir", tmp_path / name) == 0
        entries = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{key: entry[key] for key in ("loss", "grad_norm")} for entry in entries if "grad_norm" in entry]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_clip_grad_norm", transformers.Trainer._clip_grad_norm)
        before = logs("before")
    assert min(entry["grad_norm"] for entry in before) > 0.1
    monkeypatch.setattr(accelerate.Accelerator, "clip_grad_norm_", None)  # which nobody calls
    for entry, expected in zip(logs("in the step"), before, strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)
