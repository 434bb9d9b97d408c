"""DeepSpeed: the section of a recipe, and the one complete DeepSpeed configuration that it stands for.

Names and defaults are DeepSpeed's own (https://www.deepspeed.ai/docs/config-json). What the recipe says elsewhere
(batch size, accumulation, precision, clipping, optimizer, schedule) is not said a second time: it is filled in here,
and a DeepSpeed file that says otherwise is an error. Nothing here needs torch or DeepSpeed.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from neobert.config.base import ConfigError, Problem, Strict
from neobert.config.deepspeed_file import FILLED, Fact, contradictions, lookup, put, read
from neobert.config.paths import LocalPath, at_home, why_missing


def _whole(value: Any) -> Any:
    """5e8 is how DeepSpeed's documentation writes sizes, and it is a float in YAML."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Size = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
Threshold = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Device = Literal["none", "cpu"]


class DeepSpeedConfig(Strict):
    """Trains through DeepSpeed: `zero_stage` with the keys beside it, or a DeepSpeed file of one's own.

    A key that is left out has DeepSpeed's default.
    """

    zero_stage: Literal[0, 1, 2, 3] | None = Field(
        None, description="what the processes share out: nothing, optimizer states, gradients as well, weights as well"
    )
    offload_optimizer: Device | None = Field(None, description="stage 1 to 3: optimizer states in host memory")
    offload_param: Device | None = Field(None, description="stage 3: weights in host memory")
    overlap_comm: bool | None = None
    contiguous_gradients: bool | None = None
    reduce_bucket_size: Size | None = None
    allgather_bucket_size: Size | None = None
    stage3_prefetch_bucket_size: Threshold | None = None
    stage3_param_persistence_threshold: Threshold | None = None
    stage3_max_live_parameters: Threshold | None = None
    stage3_max_reuse_distance: Threshold | None = None
    zero_hpz_partition_size: Size | None = Field(
        None, description="stage 3: GPUs of a node, each node with all weights"
    )

    config_file: LocalPath | None = Field(None, description="a DeepSpeed file (JSON) in place of all the above")
    config: dict[str, Any] | None = Field(None, description="what such a file holds; config_file is read into it")

    _file: str | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _with_file(cls, data: Any, validate: ModelWrapValidatorHandler[DeepSpeedConfig]) -> DeepSpeedConfig:
        """Puts the file's contents in its place, so that they are part of what identifies a trial.

        What was submitted is then what runs, even if somebody edits the file while the trial waits or between two of
        its attempts. A file that is not there (yet) stays a name: whoever needs it says that it is missing.
        """
        file = data.get("config_file") if isinstance(data, dict) else None
        if not isinstance(file, str) or not file or data.get("config") is not None:
            return validate(data)
        try:
            contents = read(at_home(file))
        except FileNotFoundError:
            return validate(data)
        section = validate({**{k: v for k, v in data.items() if k != "config_file"}, "config": contents})
        section._file = file
        return section

    @model_validator(mode="after")
    def _consistent(self) -> DeepSpeedConfig:
        raw = [name for name in ("config_file", "config") if getattr(self, name) is not None]
        own = [name for name in type(self).model_fields if getattr(self, name) is not None and name not in raw]
        if len(raw) == 2:
            raise ValueError("config_file and config are two ways of giving the same: expected one of them")
        if raw and own:
            given = "config_file" if self._file else raw[0]
            raise ValueError(f"{', '.join(own)} cannot be set beside {given}, which says all of it")
        if raw:
            return self
        if self.zero_stage is None:
            raise ValueError("expected zero_stage (0, 1, 2 or 3), or config_file with a DeepSpeed file")
        for name, stages in _STAGES.items():
            if getattr(self, name) not in (None, "none") and self.zero_stage not in stages:
                expected = " or ".join(map(str, stages)) if len(stages) < 3 else f"{stages[0]} to {stages[-1]}"
                raise ValueError(f"{name} goes with zero_stage {expected}, but zero_stage is {self.zero_stage}")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was given alone: a key that a later version adds does not change the identity of today's trials."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def stage(self) -> int:
        """The ZeRO stage, wherever it is said."""
        found = self.zero_stage if self.config is None else lookup(self.config, "zero_optimization.stage")
        return found if isinstance(found, int) else 0

    @property
    def name(self) -> str:
        """Where a raw configuration comes from, for messages."""
        return self._file or "this configuration"


_STAGES: dict[str, tuple[int, ...]] = {
    "offload_optimizer": (1, 2, 3),
    "offload_param": (3,),
    "stage3_prefetch_bucket_size": (3,),
    "stage3_param_persistence_threshold": (3,),
    "stage3_max_live_parameters": (3,),
    "stage3_max_reuse_distance": (3,),
    "zero_hpz_partition_size": (3,),
    "overlap_comm": (1, 2, 3),
    "contiguous_gradients": (1, 2, 3),
    "reduce_bucket_size": (1, 2, 3),
    "allgather_bucket_size": (1, 2, 3),
}


def complete(section: DeepSpeedConfig, known: dict[str, Fact]) -> dict[str, Any]:
    """The whole DeepSpeed configuration; raises `ConfigError`. `known` are all `facts` of the recipe.

    Optimizer and schedule are not in it: the recipe's own are handed to DeepSpeed as objects, because what it would
    build from such blocks decays biases and norms as well, and compiles its kernels first. Of a file's values only
    `"auto"` for sizes that depend on the model stays; Hugging Face's Trainer fills these in when it has the model.
    """
    if section.config_file is not None:
        why = why_missing(at_home(section.config_file))
        raise ConfigError([Problem(("deepspeed", "config_file"), f"there is no file {section.config_file}{why}")])
    if section.config is not None:
        found = contradictions(section.config, section.name, known)
        if found:
            raise ConfigError([Problem(("deepspeed", "config"), message) for message in found])
    settings = _from_keys(section) if section.config is None else copy.deepcopy(section.config)
    for key in ("optimizer", "scheduler", "bfloat16", "elasticity", "torch_autocast"):
        settings.pop(key, None)
    for key, (value, _) in known.items():
        if key in FILLED:
            put(settings, key, value)
    settings["checkpoint"] = {"tag_validation": "Fail", **settings.get("checkpoint", {})}
    settings["steps_per_print"] = None
    settings["zero_allow_untested_optimizer"] = True  # torch's AdamW: DeepSpeed asks to be told that it is meant
    return settings


def check_agreement(section: DeepSpeedConfig, known: dict[str, Fact]) -> None:
    """For validators of whole recipes: raises `ValidationError` with every contradiction of a raw configuration.

    What depends on the number of processes or on the data shows only in `complete`.
    """
    found = contradictions(section.config or {}, section.name, known)
    if found:
        place = ("deepspeed", "config_file" if section._file else "config")
        problems = [PydanticCustomError("value_error", "{error}", {"error": message}) for message in found]
        raise ValidationError.from_exception_data(
            "deepspeed", [{"type": problem, "loc": place, "input": None} for problem in problems]
        )


def _from_keys(section: DeepSpeedConfig) -> dict[str, Any]:
    keys = section.model_dump(exclude={"zero_stage", "config_file", "config"})
    zero: dict[str, Any] = {"stage": section.zero_stage}
    for name, value in keys.items():
        if name.startswith("offload_"):
            if value != "none":
                zero[name] = {"device": value, "pin_memory": True}
        else:
            zero[name] = value
    return {"zero_optimization": zero}
