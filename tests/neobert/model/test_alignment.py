"""Weights stand at aligned places, wherever they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from neobert.model.alignment import BYTES, align_weights


def places(model: Any) -> set[int]:
    return {tensor.data_ptr() % BYTES for tensor in (*model.parameters(), *model.buffers())}


def test_weights_that_were_mapped_from_a_file_are_moved_and_stay_what_they_are(tiny_bert: Path) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny_bert)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert places(model) != {0}, "or this test shows nothing"
    align_weights(model)
    assert places(model) == {0}
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "still one matrix"


def test_what_is_aligned_is_left_alone() -> None:
    model = torch.nn.Linear(3, 5)
    before = [weight.data_ptr() for weight in model.parameters()]
    align_weights(model)
    assert [weight.data_ptr() for weight in model.parameters()] == before
