"""The classes of a head that was trained elsewhere, in the order of a task."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from neobert.config import ConfigError
from neobert.data.glue_tasks import GlueTask
from neobert.model.verify import encoder_of

log = logging.getLogger(__name__)


def realign(source: str, model: Any, theirs: Mapping[str, int], task: GlueTask) -> None:
    """Puts the rows of the head's last layer into the order of the task's classes, whose names are compared.

    `theirs` is the configuration's `label2id`; upper and lower case are the same, as in run_glue. Without this a model
    that counts MNLI's classes in another order would score below chance. A head for other classes is told, and trained
    on.
    """
    if task.is_regression:
        return
    numbers = {str(name).lower(): number for name, number in theirs.items()}
    ours = [label.lower() for label in task.labels]
    if set(numbers) != set(ours):
        if not all(re.fullmatch(r"label_\d+", name) for name in numbers):
            log.warning("%s has a head for the classes %s; it is trained on as a head for %s", source,
                        ", ".join(theirs), ", ".join(task.labels))  # fmt: skip
        return
    order = [numbers[label] for label in ours]
    if order == sorted(order):
        return
    layer = _last_layer(model, len(order))
    if layer is None:
        raise ConfigError.at(
            ("model",), f"{source} has the classes of its head in another order ({', '.join(theirs)}), and no single "
            "last layer that could be put into the task's"
        )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order])
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order])
    log.info("the classes of %s (%s) are put into the order %s", source, ", ".join(theirs), ", ".join(task.labels))


def _last_layer(model: Any, classes: int) -> nn.Linear | None:
    inside = {id(module) for module in encoder_of(model)[1].modules()}
    found = [module for module in model.modules() if isinstance(module, nn.Linear) and id(module) not in inside]
    fitting = [layer for layer in found if layer.out_features == classes]
    return fitting[0] if len(fitting) == 1 else None
