"""Graphs of steps: their shapes, and that they compute what is computed without."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neobert.model import NeoBERTConfig, NeoBERTForSequenceClassification
from neobert.model.unpadding import spare_padding
from neobert.training import graphs
from neobert.training.classifying import mean_loss
from neobert.training.graphs import Shape, StepGraphs, can_record
from neobert.training.libraries import spare_deepspeed_import
from tests.neobert.conftest import TINY, as_if_trained

spare_deepspeed_import()


@given(texts=st.integers(1, 64), lengths=st.tuples(st.integers(1, 512), st.integers(0, 511)), share=st.floats(0, 1))
def test_a_shape_holds_the_batch_and_little_more(texts: int, lengths: tuple[int, int], share: float) -> None:
    width, more = lengths
    tokens = max(texts, int(share * texts * width))
    shape = Shape.of(texts, width, tokens, most=width + more)
    assert width <= shape.width <= width + more
    assert tokens <= shape.tokens <= max(tokens + 63, tokens * 9 / 8)
    assert shape.fillers * shape.width >= shape.tokens - tokens  # no sequence is longer than the batch is wide


def test_there_are_few_shapes() -> None:
    shapes = {Shape.of(32, width, tokens, 512) for width in (97, 128) for tokens in range(1025, 2048)}
    assert len(shapes) == 8


def arguments(**other: Any) -> Any:
    usual = {"device": torch.device("cuda"), "world_size": 1, "bf16": True, "gradient_checkpointing": False,
             "deepspeed": None}  # fmt: skip
    return SimpleNamespace(**{**usual, **other})


@pytest.mark.parametrize("other", [
    {"device": torch.device("cpu")}, {"world_size": 2}, {"bf16": False}, {"gradient_checkpointing": True},
    {"deepspeed": {"zero_optimization": {}}},
])  # fmt: skip
def test_where_a_step_is_more_than_kernels_there_are_no_graphs(other: dict[str, Any]) -> None:
    model = SimpleNamespace(config=NeoBERTConfig(hidden_size=64, num_attention_heads=2))
    assert can_record(model, arguments())
    assert not can_record(model, arguments(**other))


# -- on a GPU, and the order of things without one ---------------------------------------------------------------------


def classifier(kind: str, device: str = "cuda", dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    if kind == "neobert":
        shape = NeoBERTConfig(vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                              intermediate_size=192, classifier_dropout=dropout, initializer_range=0.1)  # fmt: skip
        model: Any = NeoBERTForSequenceClassification(shape)
    else:
        shape = transformers.AutoConfig.for_model(
            kind, vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=0.1,
            dropout=dropout, attention_dropout=dropout, seq_classif_dropout=dropout,
        )  # fmt: skip
        model = transformers.AutoModelForSequenceClassification.from_config(shape)
    model = as_if_trained(model).to(device).train()
    assert spare_padding(model, torch.device(device), lambda: True, torch.bfloat16)
    forward = model.forward

    def autocast(*positional: Any, **named: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return forward(*positional, **named)

    model.forward = autocast
    return model


LENGTHS = [[5, 20, 9, 31], [60, 3, 44, 12], [8, 18, 9, 30], [61, 3, 44, 13]]


def batch(seed: int, device: str = "cuda") -> dict[str, Tensor]:
    """The first and the third are of one shape, and so are the second and the fourth."""
    random, lengths = torch.Generator().manual_seed(seed), LENGTHS[seed]
    width = max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 500, (len(lengths), width), generator=random) * mask
    labels = torch.randint(0, 2, (len(lengths),), generator=random)
    found = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in found.items()}


def usual(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
    loss = mean_loss({"logits": logits}, inputs["labels"], 8)
    loss.backward()
    return loss.detach()


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def tokens(inputs: dict[str, Tensor]) -> int:
    return int(inputs["attention_mask"].sum())


def assert_same_steps(kind: str, pieces: int, device: str, rounding: float) -> None:
    """Batches of two shapes take turns, and their gradients add up over `pieces`."""
    plain, model = classifier(kind, device), classifier(kind, device)  # of the same seed
    steps = StepGraphs(mean_loss, longest=64)
    for turn in range(4):
        model.zero_grad()
        plain.zero_grad()
        for piece in range(pieces):
            inputs = batch((turn * pieces + piece) % len(LENGTHS), device)
            loss = steps.step(model, inputs, tokens(inputs), 8)
            torch.testing.assert_close(loss, usual(plain, inputs), atol=rounding / 10, rtol=rounding)
        expected, found = gradients(plain), gradients(model)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= rounding * gradient.norm() + rounding / 300, name
    assert [graph.is_recorded for graph in steps._graphs.values()] == [True, True]


@pytest.mark.parametrize("kind", ["neobert", "bert", "roberta", "distilbert"])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_batches_are_put_in_place_and_gradients_add_up(kind: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for what only a GPU can do: what is recorded is computed when it is replayed."""

    def record(graph: Any, _: Any) -> None:
        graph._result = torch.tensor(math.nan)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(graphs._Graph, "warm_up", graphs._Graph.compute)
    monkeypatch.setattr(graphs._Graph, "record", record)
    monkeypatch.setattr(graphs._Graph, "replay", graphs._Graph.compute)
    assert_same_steps(kind, pieces, "cpu", 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["neobert", "bert", "roberta", "electra"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_graphs_give_the_same_losses_and_gradients(kind: str, pieces: int) -> None:
    assert_same_steps(kind, pieces, "cuda", 0.03)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["neobert", "bert"])
def test_dropout_is_drawn_anew_and_recording_draws_nothing(kind: str) -> None:
    model, inputs = classifier(kind, dropout=0.3), batch(0)
    steps = StepGraphs(mean_loss, longest=64)
    state = torch.cuda.get_rng_state()
    losses = [float(steps.step(model, inputs, tokens(inputs), 8)) for _ in range(4)]
    assert len(set(losses)) == 4
    torch.cuda.set_rng_state(state)
    again = [float(steps.step(model, inputs, tokens(inputs), 8)) for _ in range(4)]
    assert again == pytest.approx(losses, rel=1e-2)  # the first of them without a graph, the others with one
    mean = sum(float(steps.step(model, inputs, tokens(inputs), 8)) for _ in range(300)) / 300
    model.zero_grad()
    expected = sum(float(usual(model, inputs)) for _ in range(300)) / 300
    assert mean == pytest.approx(expected, rel=0.05)


@pytest.mark.gpu
def test_a_model_that_waits_for_the_device_is_computed_as_usual(caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = classifier("bert", dropout=0.1), batch(0)
    forward = model.forward

    def waits(**named: Any) -> Any:
        assert math.isfinite(float(named["input_ids"].sum()))
        return forward(**named)

    model.forward = waits
    steps = StepGraphs(mean_loss, longest=64)
    assert steps.step(model, inputs, tokens(inputs), 8) is not None
    for _ in range(3):
        assert steps.step(model, inputs, tokens(inputs), 8) is None
        model.zero_grad()
        assert math.isfinite(float(usual(model, inputs)))
    assert caplog.text.count("no CUDA graph can be recorded") == 1


@pytest.mark.gpu
def test_a_training_with_graphs_is_the_training_without(
    neobert: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses, of every step of two epochs with a smaller last batch."""
    replayed = []
    replay = graphs._Graph.replay
    monkeypatch.setattr(graphs._Graph, "replay", lambda graph: replayed.append(graph) or replay(graph))
    settings = [*(word for word in TINY if "use_cpu" not in word), "task_name=cola", "data.generated=300",
                "trainer.mixed_precision=bf16", "trainer.logging_steps=1", "trainer.num_train_epochs=2",
                "model.hidden_size=64"]  # fmt: skip
    for name in ("true", "false"):
        assert neobert("glue", *settings, f"trainer.cuda_graphs={name}", "--output-dir", tmp_path / name) == 0
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
             for name in ("true", "false")]  # fmt: skip
    losses, without = ([line["loss"] for line in found if "loss" in line] for found in lines)
    assert len(losses) == len(without) == 2 * math.ceil(300 / 8)
    assert losses == pytest.approx(without, rel=0.1, abs=0.02)
    assert len(replayed) > len(losses) / 2
