"""The optimizers of a pretraining: AdamW, StableAdamW, and Muon with AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW, Muon, Optimizer

from neobert.config import ConfigError
from neobert.config.pretrain import MuonConfig, PretrainOptimizer
from neobert.model.modeling import EncoderBlock


class StableAdamW(Optimizer):
    """AdamW that makes a tensor's update smaller where it would be larger than usual (https://arxiv.org/abs/2304.13013,
    algorithm 2).

    The learning rate of each tensor is divided by max(1, RMS(gradient / sqrt(second moment))), which is 1 as long as
    the second moment knows how large gradients are. It takes the place of clipping. The weight decay is decoupled and
    multiplied by the learning rate so divided.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        step = state["step"] = int(state["step"]) + 1  # AdamW's is a tensor, and its checkpoints fit
        gradient = weight.grad
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        # Corrected betas (https://arxiv.org/abs/1804.04235, section 7.1): the averages are unbiased as they are.
        first, second = ((beta * (1 - beta ** (step - 1)) / (1 - beta**step)) for beta in group["betas"])
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (gradient.square() / square.clamp(min=group["eps"] ** 2)).mean().sqrt()
        rate = group["lr"] / size.clamp(min=1.0)
        weight.mul_(1 - rate * group["weight_decay"])
        weight.sub_(rate * mean / (square.sqrt() + group["eps"]))


class Together(Optimizer):
    """Several optimizers as one, each for parameters of its own."""

    def __init__(self, *parts: Optimizer):
        self.parts = parts
        super().__init__([weight for part in parts for group in part.param_groups for weight in group["params"]], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """The parts' groups themselves take the place of those that `Optimizer` makes: schedules reach all parts."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict.get("parts", [])
        if len(saved) != len(self.parts):
            raise _another_optimizer()
        for part, state in zip(self.parts, saved, strict=True):
            part.load_state_dict(state)
        self._share_groups()


def build_optimizer(config: PretrainOptimizer, model: nn.Module) -> Optimizer:
    """For all weights of a model; biases, norms and (as they are looked up and not multiplied with) embeddings of the
    input have no weight decay.

    Learning rates and the like are those of `config`, also when the state of a checkpoint is loaded. Loading the state
    of an optimizer that differs raises `ConfigError`.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if config.name == "muon":
        return _muon_with_adamw(config, model, trained)
    groups = _groups(trained, model, config.weight_decay)
    if config.name == "stable_adamw":
        return _with_own_settings(StableAdamW(groups, config.lr, config.betas, config.eps))
    return _adamw(groups, config)


def _muon_with_adamw(config: PretrainOptimizer, model: nn.Module, trained: list[Tensor]) -> Optimizer:
    blocks = [module for module in model.modules() if isinstance(module, EncoderBlock)]
    in_blocks = {id(weight) for block in blocks for weight in block.parameters() if weight.ndim == 2}
    matrices = [weight for weight in trained if id(weight) in in_blocks]
    rest = [weight for weight in trained if id(weight) not in in_blocks]
    how = config.muon or MuonConfig()
    muon = Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=how.momentum, nesterov=how.nesterov,
        ns_steps=how.ns_steps, adjust_lr_fn=how.lr_scale,
    )  # fmt: skip
    return Together(_with_own_settings(muon), _adamw(_groups(rest, model, config.weight_decay), config))


def _adamw(groups: list[dict[str, Any]], config: PretrainOptimizer) -> Optimizer:
    devices = {weight.device.type for group in groups for weight in group["params"]}
    fused = devices <= {"cuda", "cpu"}  # one kernel for all tensors, on both
    return _with_own_settings(AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused))


def _groups(trained: list[Tensor], model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [weight for weight in trained if weight.ndim >= 2 and id(weight) not in embeddings]
    spared = [weight for weight in trained if weight.ndim < 2 or id(weight) in embeddings]
    groups = [(decayed, weight_decay), (spared, 0.0)]
    return [{"params": weights, "weight_decay": decay} for weights, decay in groups if weights]


def _with_own_settings(optimizer: Optimizer) -> Optimizer:
    """Takes only the state from a checkpoint: torch would take its learning rates, betas and weight decay as well, and
    a training that begins from another's would silently have the other's."""
    optimizer.register_load_state_dict_pre_hook(_keep_settings)
    return optimizer


def _keep_settings(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    own, saved = optimizer.param_groups, state_dict.get("param_groups", [])
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
        raise _another_optimizer()
    groups = [{**mine, "params": group["params"]} for mine, group in zip(own, saved, strict=True)]
    return {**state_dict, "param_groups": groups}


def _another_optimizer() -> ConfigError:
    return ConfigError.at(
        ("optimizer", "name"),
        "the checkpoint holds the state of another optimizer, or of another model's. To begin with a new one, name "
        "the checkpoint in model.name_or_path and leave out trainer.resume_from_checkpoint",
    )


def gradient_size(weights: Iterable[Tensor]) -> float:
    """The L2 norm of all gradients together; not a number where there are none."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return float(get_total_norm(gradients)) if gradients else math.nan
