"""Steps are counted as Trainer counts them, and seeds lead to orders of the data that have nothing in common."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from neobert.config import PretrainConfig
from neobert.config.sections import OptimizerConfig, SchedulerConfig, TrainerConfig
from neobert.training import arguments
from neobert.training.arguments import pretraining_arguments, total_steps, training_arguments


@pytest.mark.parametrize(
    ("examples", "world", "settings", "steps"),
    [
        (100, 1, {"num_train_epochs": 3}, 12),  # 4 batches of 32
        (100, 1, {"num_train_epochs": 0.5}, 2),
        (100, 2, {"num_train_epochs": 3}, 6),
        (129, 2, {"num_train_epochs": 1}, 3),  # 5 batches: the second process repeats some
        (100, 1, {"num_train_epochs": 2, "gradient_accumulation_steps": 3}, 4),
        (100, 1, {"num_train_epochs": 3, "max_steps": 5}, 5),
        (100, 1, {"num_train_epochs": 1, "max_steps": 50}, 4),  # max_steps ends a training early, never late
        (3, 4, {"num_train_epochs": 1}, 1),
    ],
)
def test_total_steps(examples: int, world: int, settings: dict[str, float], steps: int) -> None:
    assert total_steps(TrainerConfig(**settings), examples, world) == steps  # type: ignore[arg-type]


def test_no_two_neighbouring_seeds_see_the_same_order_of_the_data(tmp_path: Path) -> None:
    """Trainer's sampler is seeded with data_seed + epoch, so these must not meet."""
    orders = set()
    for seed in range(20):
        arguments = training_arguments(
            TrainerConfig(use_cpu=True), OptimizerConfig(), SchedulerConfig(), seed=seed, train_examples=10,
            world_size=1, metric="score", greater_is_better=True, evaluates=True, checkpoints=tmp_path,
        )  # fmt: skip
        orders |= {arguments.data_seed + epoch for epoch in range(100)}
    assert len(orders) == 20 * 100


@pytest.mark.parametrize(("name", "theirs"), [("linear", "linear"), ("constant", "constant_with_warmup")])
def test_settings_reach_trainer(tmp_path: Path, name: str, theirs: str) -> None:
    arguments = training_arguments(
        TrainerConfig(use_cpu=True, gradient_clipping=None, eval_strategy="steps", eval_steps=7),
        OptimizerConfig(lr=1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2),
        SchedulerConfig(name=name, warmup_steps=0.25), seed=3, train_examples=64, world_size=1, metric="f1",
        greater_is_better=True, evaluates=True, checkpoints=tmp_path,
    )  # fmt: skip
    assert (arguments.lr_scheduler_type, arguments.warmup_steps, arguments.max_grad_norm) == (theirs, 0.25, 0.0)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.adam_epsilon) == (1e-3, 0.2, 1e-6)
    assert (arguments.adam_beta1, arguments.adam_beta2) == (0.8, 0.95)
    assert (arguments.eval_steps, arguments.save_steps, arguments.save_strategy) == (7, 7, "steps")
    assert (arguments.metric_for_best_model, arguments.seed) == ("f1", 3)
    assert arguments.get_warmup_steps(100) == math.ceil(25)


@pytest.mark.parametrize(
    ("capability", "use_cpu", "said"), [((7, 5), False, {}), ((8, 0), False, {"tf32": True}), ((9, 0), True, {})]
)
def test_tf32_is_spoken_of_only_where_there_is_such_a_thing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: tuple[int, int], use_cpu: bool, said: dict[str, bool]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(arguments, "_build", lambda *_, **more: more)
    config = PretrainConfig.model_validate(
        {"dataset": {"path": "shards"}, "trainer": {"max_steps": 1, "use_cpu": use_cpu}}
    )
    found = pretraining_arguments(config, world_size=1, max_steps=1, evaluates=False, checkpoints=tmp_path)
    assert {name: value for name, value in found.items() if name == "tf32"} == said  # type: ignore[attr-defined]


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "no")])
def test_auto_is_bf16_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(arguments, "_computes_bf16", lambda: has_bf16)
    asked = TrainerConfig(use_cpu=True, mixed_precision="auto")
    assert arguments.with_precision(asked) == TrainerConfig(use_cpu=True, mixed_precision=precision)
    assert arguments.with_precision(TrainerConfig(mixed_precision="bf16")).mixed_precision == "bf16"


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99, 1.0, 2.0, 500.0])
def test_no_training_has_a_learning_rate_of_zero_in_every_step(tmp_path: Path, name: str, warmup: float) -> None:
    for steps in (1, 2, 3, 20):
        arguments = training_arguments(
            TrainerConfig(use_cpu=True, max_steps=steps), OptimizerConfig(),
            SchedulerConfig(name=name, warmup_steps=warmup),
            seed=3, train_examples=6400, world_size=1, metric="score", greater_is_better=True, evaluates=True,
            checkpoints=tmp_path,
        )  # fmt: skip
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = get_scheduler(
            arguments.lr_scheduler_type, optimizer, arguments.get_warmup_steps(steps), num_training_steps=steps
        )
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert max(rates) > 0
        if steps > 1 and 0 < warmup < 1:
            assert arguments.get_warmup_steps(steps) == math.ceil(warmup * steps), "as before"
