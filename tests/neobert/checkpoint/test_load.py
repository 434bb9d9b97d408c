"""Checkpoints of every layout become the model that they were, or a message that says what is wrong."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neobert.checkpoint import UnusableCheckpoint, find, is_neobert, load
from neobert.checkpoint.unpickling import restricted
from neobert.config.sections import ModelConfig
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.model import NeoBERT, NeoBERTForMaskedLM, NeoBERTForSequenceClassification, NeoBERTForTokenClassification
from neobert.model.loading import build_classifier
from neobert.training import checkpoints
from tests.neobert.checkpoint.deepspeed_shards import bert
from tests.neobert.checkpoint.models import logits, made, plain, split, wrapped, write_settings
from tests.neobert.damage import flip_bit, zero_page

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def model() -> NeoBERTForMaskedLM:
    return made()


def state_dict_in_a_step(root: Path, weights: dict[str, Tensor]) -> None:
    for step in ("900", "10000"):
        write_settings(root / "model_checkpoints" / step / "config.yaml")
    torch.save({}, root / "model_checkpoints" / "900" / "state_dict.pt")
    torch.save(split(wrapped(weights)), root / "model_checkpoints" / "10000" / "state_dict.pt")


def state_dict_with_hydra(root: Path, weights: dict[str, Tensor]) -> None:
    write_settings(root / "hydra" / ".hydra" / "config.yaml")
    tables = {"model.freqs_cis": torch.zeros(32, 6)}
    (root / "model_checkpoints" / "500").mkdir(parents=True)
    torch.save({"module": weights | tables}, root / "model_checkpoints" / "500" / "state_dict.pt")


def safetensors_beside_training_states(root: Path, weights: dict[str, Tensor]) -> None:
    write_settings(root / "model_checkpoints" / "500" / "config.yaml")
    save_file(split(weights), root / "model_checkpoints" / "500" / "model.safetensors")
    (root / "checkpoints" / "500").mkdir(parents=True)


def one_tree_with_a_marker(root: Path, weights: dict[str, Tensor]) -> None:
    for step in ("500", "1000"):
        directory = root / "checkpoints" / step
        write_settings(directory / "config.yaml")
        save_file(split(weights), directory / "model.safetensors")
        size = (directory / "model.safetensors").stat().st_size + (step == "1000")  # the later one was cut off
        listed = {"artifacts": [{"path": "model.safetensors", "size": size}]}
        (directory / "checkpoint_complete.json").write_text(json.dumps(listed))


def bare_weights_of_the_whole_root(root: Path, weights: dict[str, Tensor]) -> None:
    write_settings(root / "config.yaml")
    save_file(weights, root / "model.safetensors")


@pytest.mark.parametrize(
    "save",
    [state_dict_in_a_step, state_dict_with_hydra, safetensors_beside_training_states, one_tree_with_a_marker,
     bare_weights_of_the_whole_root],
)  # fmt: skip
def test_the_newest_whole_checkpoint_of_an_older_training_is_the_same_model(
    save: Callable[[Path, dict[str, Tensor]], None], model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    save(tmp_path, plain(model))
    loaded = load(find(tmp_path)).model
    assert isinstance(loaded, NeoBERTForMaskedLM)
    assert torch.equal(logits(loaded), logits(model))


def test_a_checkpoint_that_was_cut_off_is_told(
    model: NeoBERTForMaskedLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one_tree_with_a_marker(tmp_path, plain(model))
    with caplog.at_level(logging.WARNING):
        assert load(find(tmp_path)).found.directory.name == "500"
    assert "1000: model.safetensors is missing, or has not the" in caplog.text


@pytest.fixture(scope="module")
def shards(deepspeed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    command = [sys.executable, "-m", "tests.neobert.checkpoint.deepspeed_shards", root]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_shards_of_deepspeed_are_put_together_by_its_own_conversion(shards: Path, stage: int) -> None:
    root = shards / f"stage-{stage}"
    write_settings(root / "config.yaml")
    loaded = load(find(root))
    assert loaded.found.layout == "DeepSpeed"
    expected = made()
    assert not torch.equal(logits(loaded.model), logits(expected))  # a step has been made
    expected.load_state_dict(torch.load(shards / f"stage-{min(stage, 2)}" / "expected.pt"))
    torch.testing.assert_close(logits(loaded.model), logits(expected))


@pytest.mark.parametrize("stage", [2, 3])
def test_shards_of_another_encoder_go_with_the_config_json_that_lies_there(
    shards: Path, tiny_bert: Path, tmp_path: Path, stage: int
) -> None:
    root = Path(shutil.copytree(shards / f"bert-{stage}", tmp_path / "checkpoint-700"))
    bert().config.save_pretrained(root)
    write_settings(tmp_path / "config.yaml")  # of the trial that the checkpoint lies in
    for file in tiny_bert.glob("token*"):
        shutil.copy(file, root)
    found = find(root)
    assert (found.layout, found.config, is_neobert(found)) == ("DeepSpeed", root / "config.json", False)
    config = ModelConfig(name_or_path=str(root))
    model = build_classifier(config, generated_splits(TASKS["rte"], 40), 32, None).model
    expected = torch.load(shards / "bert-2" / "expected.pt")
    for name, weight in model.bert.state_dict().items():
        assert "pooler" in name or torch.allclose(weight, expected[f"bert.{name}"], atol=1e-7)


@pytest.mark.parametrize("given", ["root", "tag", "step directory"])
def test_shards_of_deepspeed_may_be_named_by_root_tag_or_directory(shards: Path, given: str) -> None:
    root = shards / "stage-2"
    write_settings(root / "config.yaml")
    found = {"root": lambda: find(root), "tag": lambda: find(root, 700), "step directory": lambda: find(root / "700")}
    assert found[given]() == find(root, "latest")


def test_a_tag_of_deepspeed_that_names_no_checkpoint_is_told_with_those_there(
    model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    write_settings(tmp_path / "config.yaml")
    (tmp_path / "global_step100").mkdir()
    torch.save({"module": plain(model)}, tmp_path / "global_step100" / "mp_rank_00_model_states.pt")
    (tmp_path / "latest").write_text("global_step200\n")
    with pytest.raises(UnusableCheckpoint, match=r"latest names .*/global_step200 .*steps there: global_step100"):
        find(tmp_path)
    assert find(tmp_path, 100).directory.name == "global_step100"


@pytest.mark.parametrize(("safe", "layout"), [(True, "safetensors"), (False, "pytorch_model.bin")])
@pytest.mark.parametrize("inside", [".", "accelerate"])
def test_a_state_that_accelerate_saved(
    model: NeoBERTForMaskedLM, tmp_path: Path, safe: bool, layout: str, inside: str
) -> None:
    from accelerate import Accelerator

    write_settings(tmp_path / "config.yaml")
    step = tmp_path / "checkpoints" / "700" / inside
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(copy.deepcopy(model))
    accelerator.save_state(str(step), safe_serialization=safe)
    loaded = load(find(tmp_path))
    assert (loaded.found.directory, loaded.found.layout) == (step.resolve(), layout)
    assert torch.equal(logits(loaded.model), logits(model))


def test_shards_of_accelerate_lie_one_directory_deeper(model: NeoBERTForMaskedLM, tmp_path: Path) -> None:
    inside = tmp_path / "checkpoints" / "700" / "pytorch_model"
    write_settings(tmp_path / "config.yaml")
    inside.mkdir(parents=True)
    torch.save({"module": wrapped(plain(model))}, inside / "mp_rank_00_model_states.pt")
    assert torch.equal(logits(load(find(tmp_path)).model), logits(model))


@pytest.mark.parametrize(
    "kind", [NeoBERT, NeoBERTForMaskedLM, NeoBERTForSequenceClassification, NeoBERTForTokenClassification]
)
@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True, "decoder_bias": False}])
def test_what_save_pretrained_wrote_is_loaded_with_its_head(
    kind: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    original = made(kind, id2label={0: "no", 1: "yes", 2: "both"}, **settings)
    original.save_pretrained(tmp_path)
    loaded = load(find(tmp_path)).model
    assert type(loaded) is kind
    assert loaded.config.id2label == {0: "no", 1: "yes", 2: "both"}
    assert torch.equal(logits(loaded), logits(original))


def test_a_trial_gives_its_model_and_a_classifiers_trial_the_best_checkpoint(tmp_path: Path) -> None:
    for step in (10, 20):
        directory = tmp_path / "checkpoints" / f"checkpoint-{step}"
        made(NeoBERTForSequenceClassification).save_pretrained(directory)
        (directory / "trainer_state.json").write_text(json.dumps({"best_global_step": 10, "global_step": step}))
        written = tmp_path / "checkpoints" / "partial-0" / directory.name
        written.parent.mkdir()
        directory.rename(written)
        checkpoints.complete(written, tmp_path / "checkpoints")
    assert load(find(tmp_path)).found.directory.name == "checkpoint-10"
    weights = tmp_path / "checkpoints/checkpoint-10/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(
        UnusableCheckpoint, match=r"checkpoint-10, the best .* bytes instead of .*/checkpoint-20, the n"
    ):
        find(tmp_path)
    assert find(tmp_path, "latest").directory.name == "checkpoint-20"
    weights.write_bytes(whole)
    flip_bit(tmp_path / "checkpoints/checkpoint-20/model.safetensors")
    assert find(tmp_path).directory.name == "checkpoint-10", "of the newest, only what it says of the best is needed"
    made().save_pretrained(tmp_path / "model")
    assert load(find(tmp_path)).found.directory == tmp_path / "model"


def marked(directory: Path) -> Path:
    made(NeoBERTForSequenceClassification).save_pretrained(directory)
    checkpoints.mark(directory)
    return directory


@pytest.mark.parametrize("inside", [".", "model"])
def test_a_model_whose_files_are_not_those_that_were_written_is_refused(tmp_path: Path, inside: str) -> None:
    directory = marked(tmp_path / inside)
    assert load(find(tmp_path)).found.directory == directory.resolve()
    zero_page(directory / "model.safetensors")
    with pytest.raises(UnusableCheckpoint, match=r"cannot be used: model.safetensors is damaged: .* if you have chang"):
        find(tmp_path)
    (directory / "complete.json").unlink()
    find(tmp_path)


def test_a_step_whose_weights_are_damaged_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20):
        marked(tmp_path / "checkpoints" / f"checkpoint-{step}")
    flip_bit(tmp_path / "checkpoints/checkpoint-20/model.safetensors")
    assert find(tmp_path, "latest").directory.name == "checkpoint-10"
    assert "checkpoint-20: model.safetensors is damaged: its checksum is" in caplog.text


def test_a_tied_decoder_may_be_saved_once_or_twice(tmp_path: Path) -> None:
    original = made(tie_word_embeddings=True, decoder_bias=False)
    write_settings(tmp_path / "config.yaml", tie_word_embeddings=True)
    weights = plain(original)
    for saved in (weights, {name: each for name, each in weights.items() if name != "decoder.weight"}):
        save_file(saved, tmp_path / "model.safetensors")
        loaded = load(find(tmp_path)).model
        assert loaded.decoder.weight is loaded.model.encoder.weight
        assert torch.equal(logits(loaded), logits(original))


LAYER = "model.transformer_encoder.1.wo.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if k != LAYER}, rf"1 not in the checkpoint \({LAYER}\)"),
        (lambda w: w | {"model.extra.weight": torch.ones(2)}, r"1 not in the model \(model.extra.weight\)"),
        (lambda w: w | {LAYER: torch.ones(2, 24)}, rf"1 of another shape \({LAYER} \(2, 24\) instead of \(24, 24\)\)"),
        (lambda w: w | {LAYER: torch.full((24, 24), torch.nan)}, rf"1 not finite \({LAYER}\)"),
        (lambda w: w | {f"module.{LAYER}": torch.ones(24, 24)}, f"two different weights are called {LAYER}"),
        (lambda w: {f"lost.{k}": v for k, v in w.items()}, "holds no NeoBERT: no model.encoder.weight among lost"),
        (lambda w: {k: torch.ones_like(v) if "norm" in k else v for k, v in w.items()}, "holds random weights: every"),
        (lambda w: {}, "holds no weights"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    write_settings(tmp_path / "config.yaml")
    torch.save(change(plain(model)), tmp_path / "state_dict.pt")
    with pytest.raises(UnusableCheckpoint, match=message):
        load(find(tmp_path))


def test_random_weights_are_loaded_where_they_are_wanted(tmp_path: Path) -> None:
    original = made()
    with torch.no_grad():
        for name, weight in original.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)
    original.save_pretrained(tmp_path)
    with pytest.raises(UnusableCheckpoint, match="allow_random_weights: true"):
        load(find(tmp_path))
    assert torch.equal(logits(load(find(tmp_path), allow_random_weights=True).model), logits(original))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngpt": True}, "ngpt is True; only models with False can be built here"),
        ({"rope": False}, "rope is False; only models with True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only models with 'swiglu'"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but the weights have 2"),
        ({"hidden_size": 48}, "hidden_size is 48, but the weights have 24"),
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of 2 x num_attention_heads 5"),
    ],
)
def test_settings_that_do_not_describe_the_weights_are_refused(
    settings: dict[str, Any], message: str, model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    write_settings(tmp_path / "config.yaml", **settings)
    save_file(plain(model), tmp_path / "model.safetensors")
    with pytest.raises(UnusableCheckpoint, match=message):
        load(find(tmp_path))


class RunsCode:
    def __init__(self, command: str = "true"):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def crafted(shards: Path, place: Path, pattern: str) -> Path:
    """A copy of shards, of which one brings code along that leaves a trace; return the trace."""
    shutil.copytree(shards, place)
    file = min(place.glob(f"*/{pattern}"))
    content = torch.load(file, map_location="cpu", weights_only=False)
    torch.save({**content, "more": RunsCode(f"touch {place}/trace")}, file)
    return place / "trace"


SHARDS = [(0, "mp_rank_*"), (2, "mp_rank_*"), (2, "*optim_states.pt"), (3, "*model_states.pt"), (3, "*optim_states.pt")]


@pytest.mark.parametrize(("stage", "pattern"), SHARDS)
def test_shards_run_no_code_that_they_bring_along(shards: Path, tmp_path: Path, stage: int, pattern: str) -> None:
    trace = crafted(shards / f"stage-{stage}", tmp_path / "shards", pattern)
    write_settings(tmp_path / "shards" / "config.yaml")
    with pytest.raises(UnusableCheckpoint, match=r"it also holds \w+.system, and what is no tensor could run code"):
        load(find(tmp_path / "shards"))
    assert not trace.exists()


@pytest.mark.parametrize("pattern", ["mp_rank_*", "*optim_states.pt"])
def test_their_conversion_for_other_numbers_of_processes_runs_none(shards: Path, tmp_path: Path, pattern: str) -> None:
    trace = crafted(shards / "stage-2", tmp_path / "shards", pattern)
    command = [sys.executable, "-m", "neobert.training.to_universal", "--input_folder", tmp_path / "shards/700"]
    command += ["--output_folder", tmp_path / "out", "--inject_missing_state"]
    environ = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environ)
    assert done.returncode != 0
    assert "what is no tensor could run code" in done.stderr.splitlines()[-1]
    assert not trace.exists()


def test_a_training_that_resumes_reads_nothing_but_data(shards: Path, tmp_path: Path) -> None:
    """DeepSpeed asks torch.load for everything that a file holds; its own classes are among that."""
    pytest.importorskip("deepspeed")
    (file,) = (shards / "stage-2").glob("*/*optim_states.pt")
    with restricted():
        assert torch.load(file, weights_only=False)["optimizer_state_dict"]
    trace = crafted(shards / "stage-2", tmp_path / "shards", "*optim_states.pt")
    (file,) = (tmp_path / "shards").glob("*/*optim_states.pt")
    with restricted(), pytest.raises(UnusableCheckpoint, match="could run code"):
        torch.load(file, weights_only=False)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "holds no checkpoint: no model.safetensors, state_dict.pt, or DeepSpeed's"),
        (lambda path: torch.save({"a": RunsCode()}, path / "state_dict.pt"),
         r"as a file of tensors: it also holds \w+.system, and what is no tensor could run code"),
        (lambda path: torch.save({"a": 1}, path / "state_dict.pt"), "does not hold a mapping of names to tensors"),
        (lambda path: (path / "state_dict.pt").write_bytes(b"cut"), "state_dict.pt cannot be read: it is cut short"),
        (lambda path: (path / "state_dict.pt").write_bytes(b""), "state_dict.pt cannot be read: it is empty. Fetch"),
        (lambda path: (path / "state_dict.pt").write_bytes(b"hello world, a text"), "cannot be read: it is cut short"),
        (lambda path: (path / "state_dict.pt").write_bytes(bytes(5000)), "cannot be read: it holds zeros instead of"),
        (lambda path: (path / "state_dict.pt").write_bytes(pickle.dumps({"a": 1}, 2)), "or no file of tensors that t"),
        (lambda path: (path / "state_dict.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
         "state_dict.pt cannot be read: it is a pointer of Git LFS.*Fetch or copy it again"),
        (lambda path: (path / "model.safetensors").write_bytes(b"cut off"),
         "model.safetensors cannot be read: it is cut short or damaged"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{"), "index.json cannot be read: it is d"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{}"), "index.json .* has no weight_map"),
        (lambda path: (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
         "b.safetensors cannot be read: No such file"),
        (lambda path: (path / "mp_rank_00_model_states.pt").write_bytes(b""),
         "shards in .* cannot be put together: mp_rank_00_model_states.pt: it is empty"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_told(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write_settings(tmp_path / "config.yaml")
    make(tmp_path)
    with pytest.raises(UnusableCheckpoint, match=message) as caught:
        load(find(tmp_path))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("size", [64, 59])
def test_a_vocabulary_of_another_size_than_the_embeddings_is_refused(
    size: int, model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | {"vocab_size": size}))
    with pytest.raises(UnusableCheckpoint, match=f"config.json: vocab_size is {size}, but the weights have 60"):
        load(find(tmp_path))


def test_weights_without_settings_are_told_what_is_missing(model: NeoBERTForMaskedLM, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b" / "c" / "d"
    inside.mkdir(parents=True)
    save_file(plain(model), inside / "model.safetensors")
    with pytest.raises(UnusableCheckpoint, match=r"hold a config.yaml .* which tells the number of heads"):
        load(find(inside))
    (inside / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnusableCheckpoint, match="describes a bert, and only NeoBERT models are read here"):
        load(find(inside))


def test_a_file_and_a_name_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match="does not exist"):
        load(find(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(UnusableCheckpoint, match="is a file; name the directory"):
        load(find(tmp_path / "file"))


def test_loading_takes_no_random_numbers_from_those_that_a_training_goes_on_with(
    model: NeoBERTForMaskedLM, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    load(find(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
