"""Weights of encoders that are not NeoBERT, in each of the layouts in which trainings leave weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neobert.checkpoint import UnusableCheckpoint, find, is_neobert, load
from neobert.config import ConfigError
from neobert.config.sections import ModelConfig
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.model.loading import build_classifier
from tests.neobert.checkpoint.models import write_settings

Weights = dict[str, Tensor]


def put(file: str, wrap: str = "") -> Callable[[Path, Weights], None]:
    def save(root: Path, weights: Weights) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith("safetensors"):
            save_file(weights, root / file)
        else:
            torch.save({wrap: weights} if wrap else weights, root / file)

    return save


LAYOUTS = {
    "state_dict.pt": put("model_checkpoints/700/state_dict.pt"),
    "safetensors": put("checkpoints/700/model.safetensors"),
    "pytorch_model.bin": put("checkpoints/700/pytorch_model.bin"),
    "Accelerate": put("checkpoints/700/accelerate/model.safetensors"),
    "DeepSpeed": put("700/mp_rank_00_model_states.pt", "module"),
    "DeepSpeed by Accelerate": put("checkpoints/700/pytorch_model/mp_rank_00_model_states.pt", "module"),
}


def build(path: Path, **settings: Any) -> Any:
    config = ModelConfig(pretrained_checkpoint_dir=str(path), **settings)
    return build_classifier(config, generated_splits(TASKS["rte"], 40), 32, None).model


@pytest.fixture
def weights(tiny_bert: Path) -> Weights:
    return {f"module.{name}": weight for name, weight in load_file(tiny_bert / "model.safetensors").items()}


def assert_same_encoder(model: Any, tiny_bert: Path) -> None:
    loaded = model.state_dict()
    saved = load_file(tiny_bert / "model.safetensors")
    encoder = [name for name in saved if name.startswith("bert.")]
    assert len(encoder) > 30
    assert all(torch.equal(saved[name], loaded[name]) for name in encoder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_configuration_that_lies_above_the_weights_says_what_they_are_of(
    layout: str, weights: Weights, tiny_bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path, ignore=lambda *_: ["model.safetensors"], dirs_exist_ok=True)
    LAYOUTS[layout](tmp_path, weights)
    found = find(tmp_path)
    assert (found.config, is_neobert(found)) == (tmp_path / "config.json", False)
    assert_same_encoder(build(tmp_path), tiny_bert)
    with pytest.raises(UnusableCheckpoint, match="describes a bert, and only NeoBERT models are read here"):
        load(found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_configuration_may_be_named(layout: str, weights: Weights, tiny_bert: Path, tmp_path: Path) -> None:
    shape = Path(shutil.copy(tiny_bert / "config.json", tmp_path / "bert.json"))
    LAYOUTS[layout](tmp_path / "trial", weights)
    write_settings(tmp_path / "trial" / "config.yaml")  # of a NeoBERT, and not meant
    model = build(tmp_path / "trial", pretrained_config_path=str(shape), tokenizer=str(tiny_bert))
    assert_same_encoder(model, tiny_bert)


def test_a_config_json_that_is_of_no_model_is_not_taken_for_one(weights: Weights, tmp_path: Path) -> None:
    put("checkpoints/700/state_dict.pt")(tmp_path, weights)
    (tmp_path / "checkpoints/700/config.json").write_text(json.dumps({"train_batch_size": 8}))
    write_settings(tmp_path / "config.yaml")
    assert find(tmp_path).config == tmp_path / "config.yaml"


def test_weights_that_do_not_fit_the_configuration_are_refused(
    weights: Weights, tiny_bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path, ignore=lambda *_: ["model.safetensors"], dirs_exist_ok=True)
    put("checkpoints/700/state_dict.pt")(tmp_path, {k: v for k, v in weights.items() if "layer.1." not in k})
    with pytest.raises(ConfigError, match=r"model.pretrained_checkpoint_dir: .*16 not in the checkpoint \(bert.enc"):
        build(tmp_path)
    (tmp_path / "checkpoints/700/state_dict.pt").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"model.pretrained_checkpoint_dir: .*state_dict.pt cannot be read: it is cu"):
        build(tmp_path)
