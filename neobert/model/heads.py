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


def realign(source: str, key: str, model: Any, said: Mapping[str, Any], task: GlueTask, must_fit: bool = False) -> None:
    """Puts the rows of the head's last layer into the order of the task's classes, whose names are compared.

    `said` is the configuration as its file has it, `key` the setting that names the model. Upper and lower case are the
    same, as in run_glue; GLUE's codes (`0`, `1`) are as good as names. Without this a model that counts MNLI's classes
    in another order would score below chance. A head for other classes is told, and trained on; where it `must_fit`
    raises `ConfigError`.
    """
    if task.is_regression:
        return
    theirs = classes_of(source, key, said)
    numbers = _lower(theirs)
    ours = [label.lower() for label in task.labels]
    if task.codes and set(numbers) == set(task.codes):
        ours = list(task.codes)
    if set(numbers) != set(ours):
        if theirs and must_fit:
            raise _problem(
                key, f"{source!r} has a head for the classes {', '.join(theirs)}, and not for "
                f"{', '.join(task.labels)}: it must be trained first (do_train: true)"
            )  # fmt: skip
        if theirs:
            log.warning("%s has a head for the classes %s; it is trained on as a head for %s", source,
                        ", ".join(theirs), ", ".join(task.labels))  # fmt: skip
        return
    order = [numbers[label] for label in ours]
    if order == list(range(len(order))):
        return
    if sorted(order) != list(range(len(order))):
        raise _problem(key, f"{source!r}: its config.json numbers the classes {theirs}; expected 0, 1, ...")
    layer = _last_layer(model, len(order))
    if layer is None:
        raise _problem(
            key, f"{source!r} has the classes of its head in another order ({', '.join(theirs)}), and no single last "
            "layer that could be put into the task's"
        )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order])
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order])
    log.info("the classes of %s (%s) are put into the order %s", source, ", ".join(theirs), ", ".join(task.labels))


def classes_of(source: str, key: str, said: Mapping[str, Any]) -> dict[str, int]:
    """Name to number of a head's classes, by whichever of `label2id` and `id2label` has them; of unnamed ones nothing.

    Hugging Face's configurations fill in what is missing with `LABEL_0`, so that the file itself has to be read.
    """
    try:
        by_name = {str(name): int(number) for name, number in (said.get("label2id") or {}).items()}
        by_number = {str(name): int(number) for number, name in (said.get("id2label") or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise _problem(
            key, f"{source!r}: its config.json has a label2id or id2label that maps no names to numbers, or back"
        ) from None  # fmt: skip
    if len(by_number) != len(said.get("id2label") or {}):
        raise _problem(key, f"{source!r}: id2label of its config.json gives two classes one name: {said['id2label']}")
    named = [found for found in (by_name, by_number) if not all(_UNNAMED.fullmatch(name) for name in found)]
    if len(named) == 2 and _lower(by_name) != _lower(by_number):
        raise _problem(
            key, f"{source!r}: label2id {by_name} and id2label {by_number} of its config.json contradict each other; "
            "nothing tells which class an output is. Correct the wrong one"
        )  # fmt: skip
    return named[0] if named else {}


_UNNAMED = re.compile(r"label_\d+", re.IGNORECASE)
"""What Hugging Face calls classes that nobody has named."""


def _lower(numbers: Mapping[str, int]) -> dict[str, int]:
    return {name.lower(): number for name, number in numbers.items()}


def _problem(key: str, message: str) -> ConfigError:
    return ConfigError.at(("model", key), message)


def _last_layer(model: Any, classes: int) -> nn.Linear | None:
    inside = {id(module) for module in encoder_of(model)[1].modules()}
    found = [module for module in model.modules() if isinstance(module, nn.Linear) and id(module) not in inside]
    fitting = [layer for layer in found if layer.out_features == classes]
    return fitting[0] if len(fitting) == 1 else None
