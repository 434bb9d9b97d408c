"""A recipe's `deepspeed` section is one complete configuration, and a file of one's own cannot contradict it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError, GlueConfig, named_paths, validate
from neobert.config.deepspeed import complete
from neobert.config.deepspeed_file import facts_of_batches, facts_of_updates

File = Callable[[Any], Path]


def glue(deepspeed: Any, **sections: Any) -> GlueConfig:
    data = {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 10}, **sections}
    return validate(GlueConfig, data if deepspeed is None else {**data, "deepspeed": deepspeed})


def completed(config: GlueConfig, world_size: int = 4, total_steps: int = 100) -> dict[str, Any]:
    assert config.deepspeed is not None
    updates = facts_of_updates(config.optimizer, config.scheduler, total_steps)
    return complete(config.deepspeed, facts_of_batches(config.trainer, world_size) | updates)


@pytest.fixture
def file(tmp_path: Path) -> File:
    def write(contents: Any) -> Path:
        path = tmp_path / "ds.json"
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
        return path

    return write


def test_the_whole_configuration_of_a_section() -> None:
    config = glue(
        {"zero_stage": 3, "offload_optimizer": "cpu", "offload_param": "none", "reduce_bucket_size": 5e8,
         "stage3_param_persistence_threshold": 0, "zero_hpz_partition_size": 8, "overlap_comm": False},
        trainer={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "mixed_precision": "bf16"},
    )  # fmt: skip
    assert completed(config) == {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 2,
        "train_batch_size": 64,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "reduce_bucket_size": 500_000_000,
            "stage3_param_persistence_threshold": 0,
            "zero_hpz_partition_size": 8,
            "overlap_comm": False,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "checkpoint": {"tag_validation": "Fail"},
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
    }


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [({"mixed_precision": "fp16"}, {"fp16": {"enabled": True}, "bf16": {"enabled": False}}),
     ({"gradient_clipping": None}, {"gradient_clipping": 0.0}),
     ({"gradient_clipping": 0.3}, {"gradient_clipping": 0.3})],
)  # fmt: skip
def test_precision_and_clipping_are_the_recipes(trainer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.items() <= completed(glue({"zero_stage": 1}, trainer=trainer)).items()


def test_where_the_device_decides_on_the_precision_a_file_may_name_any() -> None:
    file = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    glue({"config": file}, trainer={"mixed_precision": "auto"})
    with pytest.raises(ConfigError, match=r"trainer\.mixed_precision is no"):
        glue({"config": file})


def test_without_the_section_a_trial_is_what_it_was_before_there_was_one() -> None:
    """Trials are known by their settings, and finished ones are not run again."""
    assert "deepspeed" not in json.loads(glue(None).model_dump_json())
    assert "classifier_pooling" not in json.loads(glue(None).model_dump_json())["model"]
    section = json.loads(glue({"zero_stage": 2}).model_dump_json())["deepspeed"]
    assert section == {"zero_stage": 2}


@pytest.mark.parametrize(
    ("section", "message"),
    [({}, "expected zero_stage (0, 1, 2 or 3), or config_file"),
     ({"zero_stage": 4}, "deepspeed.zero_stage: expected 0, 1, 2 or 3, found 4"),
     ({"zero_stag": 1}, "deepspeed.zero_stag: unknown key; did you mean 'zero_stage'?"),
     ({"zero_stage": 0, "offload_optimizer": "cpu"}, "goes with zero_stage 1 to 3, but zero_stage is 0"),
     ({"zero_stage": 2, "offload_param": "cpu"}, "offload_param goes with zero_stage 3, but zero_stage is 2"),
     ({"zero_stage": 1, "stage3_prefetch_bucket_size": 9}, "goes with zero_stage 3, but zero_stage is 1"),
     ({"zero_stage": 1, "reduce_bucket_size": 0}, "deepspeed.reduce_bucket_size: expected greater than 0"),
     ({"zero_stage": 1, "reduce_bucket_size": 1.5}, "deepspeed.reduce_bucket_size: expected integer, found 1.5"),
     ({"zero_stage": 1, "config": {}}, "zero_stage cannot be set beside config, which says all of it"),
     ({"config": {}, "config_file": "ds.json"}, "two ways of giving the same"),
     ("ds.json", "expected a mapping of settings")],
)  # fmt: skip
def test_mistakes_in_the_section(section: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        glue(section)
    assert message in str(error.value)


def test_a_file_is_filled_in_and_the_rest_of_it_passes_through(file: File) -> None:
    path = file({
        "train_batch_size": "auto", "train_micro_batch_size_per_gpu": 32, "gradient_clipping": "auto",
        "bf16": {"enabled": "auto", "check_grad_overflow": True}, "communication_data_type": "fp32",
        "zero_optimization": {"stage": 3, "round_robin_gradients": True, "reduce_bucket_size": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": 2e-5, "betas": [0.9, 0.999], "eps": "auto"}},
        "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto", "total_num_steps": 100}},
        "checkpoint": {"load_universal": False},
    })  # fmt: skip
    assert completed(glue({"config_file": str(path)})) == {
        "train_batch_size": 128,
        "train_micro_batch_size_per_gpu": 32,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": False, "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "communication_data_type": "fp32",
        "zero_optimization": {
            "stage": 3,
            "round_robin_gradients": True,
            "reduce_bucket_size": "auto",  # depends on the model
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "checkpoint": {"tag_validation": "Fail", "load_universal": False},
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
    }


def test_a_file_becomes_part_of_the_settings(file: File) -> None:
    """So two files are two trials, and one that is edited later changes nothing."""
    path = file({"zero_optimization": {"stage": 2}})
    config = glue({"config_file": str(path)})
    written = config.model_dump_json()
    path.write_text("{}")
    again = GlueConfig.model_validate_json(written)
    assert again.model_dump() == config.model_dump()
    assert completed(again)["zero_optimization"]["stage"] == 2
    assert list(named_paths(again)) == []


def test_a_file_that_is_not_there_is_a_path_that_the_launcher_can_check() -> None:
    config = glue({"config_file": "nowhere/ds.json"})
    (path,) = named_paths(config)
    assert (path.key, path.missing) == (("deepspeed", "config_file"), "there is no nowhere/ds.json")
    with pytest.raises(ConfigError, match=r"^deepspeed.config_file: there is no file nowhere/ds.json$"):
        completed(config)


@pytest.mark.parametrize(
    ("contents", "message"),
    [('{"a": 1,\n"b"}', "ds.json:2: is not valid JSON: Expecting ':' delimiter (column 4)"),
     ("[1]", "ds.json: expected a mapping of DeepSpeed's settings, found [1]"),
     ('{"a": 1, "a": 2}', "ds.json is not valid JSON: the key 'a' stands in it twice"),
     ('{"a": NaN}', "ds.json is not valid JSON: NaN is no number in JSON"),
     ("[" * 100_000, "ds.json is not valid JSON: it is nested too deeply")],
)  # fmt: skip
def test_a_file_that_cannot_be_understood(file: File, contents: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        glue({"config_file": str(file(contents))})
    assert message in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^deepspeed: {tmp_path} cannot be read: Is a directory$"):
        glue({"config_file": str(tmp_path)})
    (tmp_path / "ds.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match=r"ds.json is not UTF-8 text \(byte 7\)$"):
        glue({"config_file": str(tmp_path / "ds.json")})


@pytest.mark.parametrize(
    ("contents", "message"),
    [({"train_micro_batch_size_per_gpu": 16},
      'train_micro_batch_size_per_gpu is 16, but trainer.per_device_train_batch_size is 32; expected 32 or "auto"'),
     ({"gradient_accumulation_steps": 4}, "is 4, but trainer.gradient_accumulation_steps is 1"),
     ({"gradient_clipping": 0.5}, "gradient_clipping is 0.5, but trainer.gradient_clipping is 1.0"),
     ({"bf16": {"enabled": True}}, 'is true, but trainer.mixed_precision is no; expected false or "auto"'),
     ({"bfloat16": {"enabled": True}}, "is true, but trainer.mixed_precision is no"),
     ({"fp16": {"enabled": True}}, "is true, but trainer.mixed_precision is no"),
     ({"torch_autocast": {"enabled": True}}, "is true, but trainer.mixed_precision is no"),
     ({"bf16": True}, "bf16 is true; expected a mapping"),
     ({"optimizer": {"params": 3}}, "optimizer.params is 3; expected a mapping"),
     ({"optimizer": {"legacy_fusion": True}}, "optimizer.legacy_fusion has no counterpart in the recipe"),
     ({"elasticity": {"enabled": True}}, "but the recipe fixes the batch size"),
     ({"checkpoint": {"writer": {"decoupled": True}}}, "but a checkpoint is complete when it is saved"),
     ({"optimizer": {"type": "Lamb"}}, 'optimizer.type is "Lamb", but the recipe\'s optimizer is AdamW'),
     ({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}, "but the recipe's optimizer is AdamW"),
     ({"optimizer": {"params": {"lr": 1e-3}}}, "optimizer.params.lr is 0.001, but optimizer.lr is 2e-05"),
     ({"optimizer": {"params": {"betas": [0.9, 0.95]}}}, "is [0.9, 0.95], but optimizer.betas is [0.9, 0.999]"),
     ({"optimizer": {"params": {"eps": 1e-6}}}, "is 1e-06, but optimizer.eps is 1e-08"),
     ({"optimizer": {"params": {"weight_decay": 0}}}, "is 0, but optimizer.weight_decay is 0.01"),
     ({"optimizer": {"params": {"momentum": 0.9}}}, "optimizer.params.momentum has no counterpart in the recipe"),
     ({"scheduler": {"type": "WarmupLR"}}, 'scheduler.type is "WarmupLR", but scheduler.name is linear'),
     ({"scheduler": {"params": {"warmup_max_lr": 1}}}, "is 1, but optimizer.lr is 2e-05"),
     ({"scheduler": {"params": {"warmup_type": "log"}}}, "but the recipe warms up linearly"),
     ({"scheduler": {"params": {"cycle": 3}}}, "scheduler.params.cycle has no counterpart in the recipe"),
     ({"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": False}},
      "but checkpoints hold the whole model")],
)  # fmt: skip
def test_contradictions_show_as_soon_as_the_settings_are_read(file: File, contents: Any, message: str) -> None:
    path = file(contents)
    with pytest.raises(ConfigError) as error:
        glue({"config_file": str(path)})
    assert message in str(error.value)
    assert str(error.value).startswith(f"deepspeed.config_file: {path}: ")


def test_all_contradictions_are_named_at_once(file: File) -> None:
    path = file({"gradient_clipping": 0, "gradient_accumulation_steps": 2, "zero_optimization": {"stage": 1}})
    with pytest.raises(ConfigError) as error:
        glue({"config_file": str(path)})
    assert str(error.value).count(str(path)) == 2


@pytest.mark.parametrize(
    ("contents", "message"),
    [({"train_batch_size": 64}, "train_batch_size is 64, but a step takes 32 x 1 x 4 examples"),
     ({"scheduler": {"params": {"warmup_num_steps": 11}}}, "is 11, but scheduler.warmup_steps is 0.1 of 100 steps"),
     ({"scheduler": {"params": {"total_num_steps": 99}}}, "is 99, but the training has 100 steps")],
)  # fmt: skip
def test_what_depends_on_processes_and_data_shows_when_the_training_starts(contents: Any, message: str) -> None:
    config = glue({"config": contents})
    with pytest.raises(ConfigError) as error:
        completed(config)
    assert str(error.value).startswith("deepspeed.config: ")
    assert message in str(error.value)


def test_a_whole_number_of_warmup_steps_is_known_at_once() -> None:
    raw = {"scheduler": {"params": {"warmup_num_steps": 11}}}
    glue({"config": raw}, scheduler={"warmup_steps": 11})
    with pytest.raises(ConfigError, match=r"is 11, but scheduler\.warmup_steps is 12"):
        glue({"config": raw}, scheduler={"warmup_steps": 12})


def test_what_is_given_is_left_as_it_was() -> None:
    raw: dict[str, Any] = {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 1}}
    config = glue({"config": raw})
    completed(config)
    assert raw == {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 1}}
    assert config.deepspeed is not None and config.deepspeed.config == raw
