"""Optimizers follow their papers, spare what must not decay, and go on from a checkpoint as if nothing had been."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from neobert.config import ConfigError
from neobert.config.pretrain import PretrainOptimizer
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM
from neobert.training.optimizers import StableAdamW, Together, build_optimizer, gradient_size
from neobert.training.schedules import Schedule, scheduler

NAMES = ("adamw", "stable_adamw", "muon")


def tiny(seed: int = 0, **shape: object) -> NeoBERTForMaskedLM:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return NeoBERTForMaskedLM(NeoBERTConfig(**sizes, intermediate_size=24, **shape))


def give_gradients(model: nn.Module, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = size * torch.randn(weight.shape, generator=generator)


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        give_gradients(model, step, size=10.0 if step == 3 else 1.0)  # the fourth is larger than usual
        optimizer.step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def stable_adamw(
    weight: float, gradients: list[float], lr: float, betas: tuple[float, float], eps: float, decay: float
) -> float:
    """A weight of one number, by the paper's algorithm 2, written as it stands there: with Python's floats, with
    averages that are corrected for their start, and with the root mean square of a single number."""
    v = u = 0.0
    for t, g in enumerate(gradients, start=1):
        first = betas[0] * (1 - betas[0] ** (t - 1)) / (1 - betas[0] ** t)
        second = betas[1] * (1 - betas[1] ** (t - 1)) / (1 - betas[1] ** t)
        v = first * v + (1 - first) * g
        u = second * u + (1 - second) * g * g
        rms = math.sqrt(g * g / max(u, eps * eps))
        rate = lr / max(1.0, rms)
        weight = weight - rate * decay * weight - rate * v / (math.sqrt(u) + eps)
    return weight


@settings(deadline=None)
@given(
    gradients=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8),
    lr=st.floats(1e-5, 0.1),
    betas=st.tuples(st.floats(0.5, 0.99), st.floats(0.5, 0.999)),
    eps=st.floats(1e-8, 1e-3),
    decay=st.floats(0, 1),
)
def test_stable_adamw_is_algorithm_2_of_its_paper(
    gradients: list[float], lr: float, betas: tuple[float, float], eps: float, decay: float
) -> None:
    weight = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    optimizer = StableAdamW([weight], lr, betas, eps, decay)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(stable_adamw(0.7, gradients, lr, betas, eps, decay), rel=1e-9, abs=1e-12)


def test_stable_adamw_looks_at_each_tensor_as_a_whole() -> None:
    surprised, calm = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer = StableAdamW([surprised, calm], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(50):
        surprised.grad, calm.grad = torch.ones(4), torch.ones(4)
        optimizer.step()
    torch.testing.assert_close(surprised, calm)
    before = calm.detach().clone()
    surprised.grad, calm.grad = torch.tensor([20.0, 1.0, 1.0, 1.0]), torch.ones(4)
    optimizer.step()
    # Nothing is unusual about the last three numbers of `surprised`, yet all of the tensor goes a smaller step.
    assert torch.all((before - surprised)[1:] < 0.5 * (before - calm)[1:])


def test_stable_adamw_is_adamw_as_long_as_gradients_are_as_usual() -> None:
    model, twin = tiny(), tiny()
    first = StableAdamW(model.parameters(), 0.01, (0.9, 0.95), 1e-8, 0.1)
    second = AdamW(twin.parameters(), 0.01, (0.9, 0.95), 1e-8, 0.1)
    for step in range(5):
        for each in (model, twin):
            give_gradients(each, 0, size=0.9**step)  # never larger than before
        first.step(), second.step()
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-6)


def test_fused_adamw_is_adamw_within_rounding() -> None:
    model, twin = tiny(), tiny()
    fused = build_optimizer(PretrainOptimizer(lr=0.01), model)
    assert all(group["fused"] for group in fused.param_groups)
    plain = AdamW(copy.deepcopy(fused.param_groups), fused=False)
    for mine, theirs in zip(plain.param_groups, build_optimizer(PretrainOptimizer(lr=0.01), twin).param_groups,
                            strict=True):  # fmt: skip
        mine.update(params=theirs["params"], fused=False)
    train(model, fused, range(5))
    train(twin, plain, range(5))
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_is_trained_once_and_only_matrices_decay(name: str, tied: bool) -> None:
    model = tiny(tie_word_embeddings=tied)
    optimizer = build_optimizer(PretrainOptimizer(name=name, weight_decay=0.3), model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    trained = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(trained) == sorted(names.values())
    decay = {names[id(weight)]: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    matrices = {f"model.transformer_encoder.{block}.{part}.weight"
                for block in (0, 1) for part in ("qkv", "wo", "ffn.w12", "ffn.w3")}  # fmt: skip
    if not tied:  # a tied one is the embedding of the input
        matrices.add("decoder.weight")
    assert {name for name, value in decay.items() if value} == matrices
    assert set(decay.values()) == {0.0, 0.3}


def test_weights_that_are_frozen_are_left_out() -> None:
    model = tiny()
    model.model.encoder.weight.requires_grad_(False)
    for name in NAMES:
        optimizer = build_optimizer(PretrainOptimizer(name=name), model)
        assert all(weight.requires_grad for group in optimizer.param_groups for weight in group["params"])


def test_muon_is_for_the_matrices_of_the_blocks_and_adamw_for_the_rest() -> None:
    model, twin = tiny(), tiny()
    settings = PretrainOptimizer.model_validate(
        {"name": "muon", "lr": 0.02, "muon": {"momentum": 0.8, "nesterov": False, "ns_steps": 3}}
    )
    optimizer = build_optimizer(settings, model)
    assert isinstance(optimizer, Together)
    inside = [weight for name, weight in twin.named_parameters() if "transformer_encoder" in name and weight.ndim == 2]
    rest = [weight for weight in twin.parameters() if all(weight is not other for other in inside)]
    alone = [
        Muon(inside, 0.02, 0.1, momentum=0.8, nesterov=False, ns_steps=3, adjust_lr_fn="match_rms_adamw"),
        AdamW([
            {"params": [weight for weight in rest if weight is twin.decoder.weight], "weight_decay": 0.1},
            {"params": [weight for weight in rest if weight is not twin.decoder.weight], "weight_decay": 0.0},
        ], 0.02, (0.9, 0.95), fused=True),
    ]  # fmt: skip
    train(model, optimizer, range(4))
    for step in range(4):
        give_gradients(twin, step, size=10.0 if step == 3 else 1.0)
        for each in alone:
            each.step()
    assert_same(weights(model), weights(twin))


def test_an_update_of_muon_has_singular_values_around_one() -> None:
    model = tiny()
    optimizer = build_optimizer(
        PretrainOptimizer.model_validate(
            {"name": "muon", "lr": 1.0, "weight_decay": 0.0, "muon": {"lr_scale": "original"}}
        ),
        model,
    )
    before = weights(model)
    give_gradients(model, 0)
    optimizer.step()
    name = "model.transformer_encoder.0.wo.weight"
    values = torch.linalg.svdvals(before[name] - weights(model)[name])
    assert 0.3 < values.min() <= values.max() < 1.5


def test_a_schedule_reaches_all_parts_and_so_does_zero_grad() -> None:
    model = tiny()
    optimizer = build_optimizer(PretrainOptimizer(name="muon", lr=0.5), model)
    assert isinstance(optimizer, Together)

    def rates() -> list[float]:
        return [group["lr"] for part in optimizer.parts for group in part.param_groups]

    taken: list[int] = []
    follower = scheduler(optimizer, Schedule("constant", 1.0), lambda: 0.6 if taken else 0.2)
    assert rates() == pytest.approx([0.1] * 3)
    give_gradients(model, 0)
    optimizer.step()
    taken.append(1)
    follower.step()
    assert rates() == pytest.approx([0.3] * 3)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_ends_with_the_weights_of_an_undisturbed_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    def start(model: nn.Module) -> Optimizer:
        return Accelerator(cpu=True).prepare_optimizer(build_optimizer(PretrainOptimizer(name=name, lr=0.01), model))

    model = tiny()
    train(model, start(model), range(6))

    before = tiny()
    optimizer = start(before)
    train(before, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")

    after = tiny(seed=1)
    after.load_state_dict(before.state_dict())
    optimizer = start(after)
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(after, optimizer, range(3, 6))
    assert_same(weights(after), weights(model))


@pytest.mark.parametrize("name", NAMES)
def test_after_a_checkpoint_was_loaded_schedules_still_reach_all_parts(name: str) -> None:
    model = tiny()
    optimizer = build_optimizer(PretrainOptimizer(name=name, lr=0.01), model)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(1))
    assert_same(weights(model), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_the_trials_and_not_those_of_the_checkpoint_that_it_begins_from(name: str) -> None:
    other, model = tiny(), tiny()
    begun = build_optimizer(PretrainOptimizer(name=name, lr=0.5, weight_decay=0.4, betas=(0.1, 0.2)), other)
    train(other, begun, range(2))
    optimizer = build_optimizer(PretrainOptimizer(name=name, lr=0.01, weight_decay=0.3), model)
    optimizer.load_state_dict(begun.state_dict())
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.3}
    assert {group["betas"] for group in optimizer.param_groups if "betas" in group} == {(0.9, 0.95)}


@pytest.mark.parametrize(("saved", "named"), [("adamw", "muon"), ("muon", "adamw"), ("muon", "stable_adamw")])
def test_the_state_of_another_optimizer_is_refused_with_what_to_do(saved: str, named: str) -> None:
    state = build_optimizer(PretrainOptimizer(name=saved), tiny()).state_dict()
    with pytest.raises(ConfigError, match=r"^optimizer.name: the checkpoint holds .* model.name_or_path"):
        build_optimizer(PretrainOptimizer(name=named), tiny()).load_state_dict(state)


def test_the_state_of_another_models_optimizer_is_refused() -> None:
    for name in NAMES:
        state = build_optimizer(PretrainOptimizer(name=name), tiny()).state_dict()
        larger = NeoBERTForMaskedLM(NeoBERTConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3,
                                                  num_attention_heads=2, intermediate_size=24))  # fmt: skip
        with pytest.raises(ConfigError, match="of another model's"):
            build_optimizer(PretrainOptimizer(name=name), larger).load_state_dict(state)


def test_adamw_and_stable_adamw_go_on_from_each_others_state() -> None:
    for saved, named in (("adamw", "stable_adamw"), ("stable_adamw", "adamw")):
        model = tiny()
        begun = build_optimizer(PretrainOptimizer(name=saved), model)
        train(model, begun, range(2))
        optimizer = build_optimizer(PretrainOptimizer(name=named), model)
        optimizer.load_state_dict(begun.state_dict())
        train(model, optimizer, range(2, 4))
        assert all(int(state["step"]) == 4 for state in optimizer.state.values())


def test_the_size_of_the_gradient_is_that_of_all_gradients_together() -> None:
    model = tiny()
    assert math.isnan(gradient_size(model.parameters()))
    give_gradients(model, 0)
    together = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert gradient_size(model.parameters()) == pytest.approx(together.norm().item())
    next(model.parameters()).grad[0] = math.nan
    assert math.isnan(gradient_size(model.parameters()))


def test_closures_are_called_once() -> None:
    for name in NAMES:
        model, calls = tiny(), []
        optimizer = build_optimizer(PretrainOptimizer(name=name), model)
        give_gradients(model, 0)
        assert optimizer.step(lambda calls=calls: calls.append(1) or 2.5) == 2.5
        assert calls == [1]
