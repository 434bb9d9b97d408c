"""Ways to compute the same with less: half the precision, less memory, compiled code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "initializer_range": 0.2}  # fmt: skip
BATCH_LENGTHS = [4, 9, 9, 17]


@pytest.fixture
def model() -> NeoBERTForMaskedLM:
    torch.manual_seed(0)
    return NeoBERTForMaskedLM(NeoBERTConfig(**SMALL)).train()


def packed(lengths: list[int]) -> dict[str, Any]:
    ids = torch.randint(1, 60, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    labels = torch.where(torch.arange(sum(lengths)) % 3 == 0, ids, -100)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return {"input_ids": ids, "labels": labels, "cu_seqlens": cu_seqlens, "lengths": lengths}


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_in_autocast_products_are_bf16_and_weights_and_gradients_stay_float32(model: NeoBERTForMaskedLM) -> None:
    expected, wanted = loss_and_gradients(model, packed(BATCH_LENGTHS))
    seen = []
    model.model.transformer_encoder[0].qkv.register_forward_hook(lambda *inputs: seen.append(inputs[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = loss_and_gradients(model, packed(BATCH_LENGTHS))
    assert seen == [torch.bfloat16]
    assert loss.dtype == gradients.dtype == torch.float32
    assert (loss - expected).abs() < 0.02 * expected
    assert (gradients - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_of_packed_texts_changes_nothing(model: NeoBERTForMaskedLM) -> None:
    expected = loss_and_gradients(model, packed(BATCH_LENGTHS))
    calls = []
    model.model.transformer_encoder[0].qkv.register_forward_pre_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable()
    found = loss_and_gradients(model, packed(BATCH_LENGTHS))
    assert len(calls) == 2  # the second time on the way back
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_compute_the_same_and_serve_texts_of_other_lengths(
    model: NeoBERTForMaskedLM, checkpointing: bool
) -> None:
    batches = [packed([4, 9, 9, 17]), packed([3, 5, 30]), packed([2, 2, 11, 13, 15])]
    expected = [loss_and_gradients(model, batch) for batch in batches]
    names = list(model.state_dict())
    model.compile_blocks()
    if checkpointing:
        model.gradient_checkpointing_enable()
    assert list(model.state_dict()) == names
    for number, (batch, wanted) in enumerate(zip(batches, expected, strict=True)):
        with torch.compiler.set_stance("fail_on_recompile" if number == 2 else "default"):
            found = loss_and_gradients(model, batch)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
