"""How large a model is, by the files that are on this machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slurm.disk.errors import Unknown
from slurm.disk.weights import find_model, find_on_hub, read_size, read_vocabulary


def write_model(
    directory: Path, shapes: Mapping[str, list[int]], name: str = "model.safetensors", **config: Any
) -> Path:
    """Headers alone: what they speak of is never read."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {key: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for key, shape in shapes.items()}
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (directory / name).write_bytes(struct.pack("<Q", len(header)) + header)
    (directory / "config.json").write_text(json.dumps({"hidden_size": 4, "vocab_size": 10, **config}))
    return directory


BERT = {"bert.embeddings.weight": [10, 4], "bert.layer.0.weight": [4, 4], "bert.layer.0.bias": [4]}


def test_weights_are_counted_and_a_head_apart(tmp_path: Path) -> None:
    heads = {"cls.predictions.decoder.weight": [10, 4], "classifier.weight": [2, 4]}
    size = read_size(write_model(tmp_path, BERT | heads))
    assert (size.encoder, size.head, size.hidden_size, size.vocabulary) == (60, 48, 4, 10)


def test_a_bare_encoder_and_one_that_was_wrapped_count_alike(tmp_path: Path) -> None:
    bare = {name.removeprefix("bert."): shape for name, shape in BERT.items()}
    wrapped = {f"_orig_mod.module.{name}": shape for name, shape in (BERT | {"classifier.weight": [2, 4]}).items()}
    assert read_size(write_model(tmp_path / "bare", bare)).total == 60
    assert read_size(write_model(tmp_path / "wrapped", wrapped)).encoder == 60


def test_a_decoder_of_several_layers_is_no_head(tmp_path: Path) -> None:
    shapes = {"encoder.layers.0.weight": [4, 4], "decoder.layers.0.weight": [4, 4], "lm_head.weight": [10, 4]}
    size = read_size(write_model(tmp_path, shapes))
    assert (size.encoder, size.head) == (32, 40)


def test_weights_in_several_files_are_counted_together(tmp_path: Path) -> None:
    for number, (name, shape) in enumerate(BERT.items()):
        write_model(tmp_path, {name: shape}, f"model-{number}.safetensors")
    index = {"weight_map": {name: f"model-{number}.safetensors" for number, name in enumerate(BERT)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_size(tmp_path).total == 60


@pytest.mark.parametrize(("kind", "width"), [("float32", 4), ("bfloat16", 2), ("torch.float16", 2)])
def test_of_pickles_the_bytes_tell(tmp_path: Path, kind: str, width: int) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(60 * width))
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": kind, "hidden_size": 4}))
    assert read_size(tmp_path).total == 60


def test_of_a_neobert_the_configuration_tells_and_of_others_it_does_not(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 12, "vocab_size": 100}
    for kind in ("neobert", "bert"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
    assert read_size(tmp_path / "neobert").encoder == 100 * 8 + 2 * (4 * 64 + 3 * 8 * 8) + 5 * 8
    with pytest.raises(Unknown, match="a configuration, and no weights"):
        read_size(tmp_path / "bert")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, struct.pack("<Q", 5) + b"[[[[["])
def test_a_damaged_file_is_told_and_no_number_made_up(tmp_path: Path, content: bytes) -> None:
    write_model(tmp_path, BERT)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Unknown, match="cannot be read"):
        read_size(tmp_path)


def test_a_model_is_found_in_a_trial(tmp_path: Path) -> None:
    assert find_model(tmp_path) is None
    for step in (9, 100):
        write_model(tmp_path / "checkpoints" / f"checkpoint-{step}", BERT)
    assert find_model(tmp_path) == tmp_path / "checkpoints/checkpoint-100"
    assert find_model(tmp_path / "checkpoints") == tmp_path / "checkpoints/checkpoint-100"
    write_model(tmp_path / "model", BERT)
    assert find_model(tmp_path) == tmp_path / "model"


def test_the_cache_of_the_hub_is_looked_at_where_jobs_would(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    write_model(repository / "snapshots" / "abc", BERT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    expected = repository / "snapshots" / "abc"
    assert find_on_hub("org/name", None, {"HF_HOME": str(tmp_path)}) == expected
    assert find_on_hub("org/name", "abc", {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": "/elsewhere"}) == expected
    assert find_on_hub("org/name", "other", {"HF_HOME": str(tmp_path)}) is None
    assert find_on_hub("org/other", None, {"HF_HOME": str(tmp_path)}) is None


def test_the_entries_of_a_tokenizer_are_counted_once_each(tmp_path: Path) -> None:
    assert read_vocabulary(tmp_path) is None
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    assert read_vocabulary(tmp_path) == 3
    model, added = {"vocab": {"[PAD]": 0, "a": 1}}, [{"content": "[PAD]"}, {"content": "[NEW]"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    assert read_vocabulary(tmp_path) == 3
    model = {"vocab": [["<pad>", 0.0], ["a", -1.0]]}  # type: ignore[dict-item]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    assert read_vocabulary(tmp_path) == 2


def test_a_user_without_a_home_has_no_cache_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown_uid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown_uid)
    monkeypatch.delenv("HOME")
    assert find_on_hub("org/name", None, {}) is None
    assert find_on_hub("org/name", None, {"HF_HOME": "~/hf"}) is None


def test_a_vocabulary_is_counted_in_whatever_encoding_it_is(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("[PAD]\nété\na".encode("latin-1"))
    assert read_vocabulary(tmp_path) == 3


def test_widths_that_are_no_numbers_are_not_known(tmp_path: Path) -> None:
    size = read_size(write_model(tmp_path, BERT, hidden_size="4", vocab_size=None))
    assert (size.encoder, size.hidden_size, size.vocabulary) == (60, None, None)
