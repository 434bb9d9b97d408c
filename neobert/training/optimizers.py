"""The optimizers of a pretraining: AdamW, StableAdamW, and Muon with AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from neobert.config.pretrain import PretrainOptimizer
from neobert.model.modeling import EncoderBlock


class StableAdamW(Optimizer):
    """AdamW that makes a tensor's update smaller where it would be larger than usual (https://arxiv.org/abs/2304.13013).

    The learning rate of each tensor is divided by max(1, RMS(gradient / sqrt(second moment))), which is 1 as long as
    the second moment knows how large gradients are. It takes the place of clipping. The weight decay is decoupled and
    multiplied by the learning rate, as in torch's AdamW.
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
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        step, gradient = int(state["step"]), weight.grad
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
        # Not by Optimizer's own constructor, which would make groups anew: these are the parts' groups themselves, so
        # that a schedule's learning rates reach them.
        self.parts = parts
        self.defaults: dict[str, Any] = {}
        super().__init__([weight for part in parts for group in part.param_groups for weight in group["params"]], {})
        self.param_groups = [group for part in parts for group in part.param_groups]

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
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build_optimizer(config: PretrainOptimizer, model: nn.Module) -> Optimizer:
    """For all weights of a model; biases, norms and (as they are looked up and not multiplied with) embeddings of the
    input have no weight decay."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if config.name != "muon":
        groups = _groups(trained, model, config.weight_decay)
        if config.name == "stable_adamw":
            return StableAdamW(groups, config.lr, config.betas, config.eps)
        return _adamw(groups, config)
    in_blocks = {id(weight) for module in model.modules() if isinstance(module, EncoderBlock)
                 for weight in module.parameters() if weight.ndim == 2}  # fmt: skip
    matrices = [weight for _, weight in trained if id(weight) in in_blocks]
    rest = [(name, weight) for name, weight in trained if id(weight) not in in_blocks]
    how = config.muon
    if how is None:
        from neobert.config.pretrain import MuonConfig

        how = MuonConfig()
    muon = Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=how.momentum, nesterov=how.nesterov,
        ns_steps=how.ns_steps, adjust_lr_fn=how.lr_scale,
    )  # fmt: skip
    return Together(muon, _adamw(_groups(rest, model, config.weight_decay), config))


def _adamw(groups: list[dict[str, Any]], config: PretrainOptimizer) -> Optimizer:
    devices = {weight.device.type for group in groups for weight in group["params"]}
    fused = devices <= {"cuda", "cpu"}  # one kernel for all tensors, on both
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _groups(trained: list[tuple[str, Tensor]], model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [weight for _, weight in trained if weight.ndim >= 2 and id(weight) not in embeddings]
    spared = [weight for _, weight in trained if weight.ndim < 2 or id(weight) in embeddings]
    groups = [(decayed, weight_decay), (spared, 0.0)]
    return [{"params": weights, "weight_decay": decay} for weights, decay in groups if weights]


def gradient_size(weights: Iterable[Tensor]) -> float:
    """The L2 norm of all gradients together."""
    sizes = [weight.grad.norm() for weight in weights if weight.grad is not None]
    return float(torch.stack(sizes).norm()) if sizes else math.nan
