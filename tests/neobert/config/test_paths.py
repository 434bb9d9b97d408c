from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neobert.config import ExportConfig, GlueConfig, PreprocessConfig, PretrainConfig, Strict, named_paths, validate
from neobert.config.paths import NamedPath, Role


def found(model: type[Strict], data: dict[str, Any]) -> dict[str, tuple[str, Role]]:
    settings = validate(model, data)
    return {".".join(map(str, path.key)): (path.value, path.role) for path in named_paths(settings)}


def test_paths_are_found_by_their_type_at_any_depth() -> None:
    data: dict[str, Any] = {"train_file": "a.csv", "validation_file": "b.csv"}
    model = {"name_or_path": "some/model", "tokenizer": "./words"}
    assert found(GlueConfig, {"data": data, "model": model}) == {
        "model.name_or_path": ("some/model", Role.MODEL),
        "model.tokenizer": ("./words", Role.MODEL),
        "data.train_file": ("a.csv", Role.INPUT),
        "data.validation_file": ("b.csv", Role.INPUT),
    }
    preprocess = {"data": {"files": ["x", "y/*.txt"]}, "tokenizer": {"train_vocab_size": 100}, "output": "shards"}
    assert found(PreprocessConfig, preprocess) == {
        "data.files.0": ("x", Role.FILES),
        "data.files.1": ("y/*.txt", Role.FILES),
        "output": ("shards", Role.OUTPUT),
    }
    assert found(ExportConfig, {"source": "run"}) == {"source": ("run", Role.INPUT)}


def test_a_word_in_place_of_a_path_is_none() -> None:
    sources = [{"path": "a"}, {"path": "b"}]
    data: dict[str, Any] = {"dataset": {"sources": sources}, "trainer": {"max_steps": 1}}
    both = {"dataset.sources.0.path": ("a", Role.INPUT), "dataset.sources.1.path": ("b", Role.INPUT)}
    for word in ("auto", "latest", True):
        data["trainer"]["resume_from_checkpoint"] = word
        assert found(PretrainConfig, data) == both
    data["trainer"]["resume_from_checkpoint"] = "elsewhere"
    assert found(PretrainConfig, data) == both | {"trainer.resume_from_checkpoint": ("elsewhere", Role.INPUT)}


@pytest.mark.parametrize(
    ("value", "role", "needed", "missing"),
    [
        ("no/file", Role.INPUT, True, "there is no no/file"),
        ("no/*.txt", Role.FILES, True, "there is no file no/*.txt"),
        ("https://host/file.txt", Role.FILES, False, None),
        ("owner/model", Role.MODEL, False, None),
        ("./model", Role.MODEL, True, "there is no ./model"),
        ("no/where/shards", Role.OUTPUT, True, "there is no directory no/where, in which shards is to be made"),
    ],
)
def test_what_is_not_there(value: str, role: Role, needed: bool, missing: str | None) -> None:
    path = NamedPath((), value, role)
    assert path.found == []
    assert path.must_be_here == needed
    if missing:
        assert path.missing == missing


def test_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").mkdir()
    for name in ("text/a.txt", "text/b.txt", "text/[1].txt"):
        Path(name).touch()
    assert sorted(NamedPath((), "text/?.txt", Role.FILES).found) == [Path("text/a.txt"), Path("text/b.txt")]
    assert NamedPath((), "text/[1].txt", Role.FILES).found == [Path("text/[1].txt")]
    assert NamedPath((), "text", Role.FILES).found == [Path("text")]
    assert NamedPath((), "text", Role.MODEL).found == [Path("text")], "a directory, though it might be a name"
    assert NamedPath((), "text/shards", Role.OUTPUT).found == [Path("text")]
