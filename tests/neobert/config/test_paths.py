from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neobert.checkpoint import UnusableCheckpoint, find
from neobert.config import (
    ExportConfig,
    GlueConfig,
    PreprocessConfig,
    PretrainConfig,
    Strict,
    SubmissionConfig,
    named_paths,
    validate,
)
from neobert.config.paths import NamedPath, Role, at_home, expand_home, why_incomplete, why_missing


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


# -- the home directory ---------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_tilde_is_expanded_in_every_path_for_the_task_and_stays_in_what_identifies_the_trial(home: Path) -> None:
    cases: list[tuple[type[Strict], dict[str, Any]]] = [
        (GlueConfig, {"task_name": "rte", "data": {"dir": "~/glue"},
                      "model": {"pretrained_checkpoint_dir": ["~/a", "/b"], "tokenizer": "~/t"}}),
        (GlueConfig, {"data": {name: f"~/{name}.csv" for name in ("train_file", "validation_file", "test_file")},
                      "model": {"name_or_path": "~/model"}}),
        (PreprocessConfig, {"data": {"files": ["~/x", "~/y/*.txt", "s3://b/~/z"]}, "output": "~/shards",
                            "tokenizer": {"name_or_path": "~/t"}}),
        (PretrainConfig, {"dataset": {"sources": [{"path": "~/a"}, {"path": "~/b"}]},
                          "trainer": {"max_steps": 1, "resume_from_checkpoint": "~/c"}}),
        (ExportConfig, {"source": "~/run", "tokenizer": "~/t"}),
        (SubmissionConfig, {"trials": ["~/a", "~/b"]}),
    ]  # fmt: skip
    for model, data in cases:
        settings = validate(model, data)
        expanded = expand_home(settings)
        assert "~/" in settings.model_dump_json()
        assert "~/" not in expanded.model_dump_json().replace("s3://b/~/z", "")
        expected = [str(home / path.value[2:]) if path.value.startswith("~") else path.value
                    for path in named_paths(settings)]  # fmt: skip
        assert [path.value for path in named_paths(expanded)] == expected
        assert expanded.model_fields_set == settings.model_fields_set


def test_settings_without_a_tilde_are_the_same_object() -> None:
    settings = validate(GlueConfig, {"task_name": "rte", "data": {"dir": "glue"}, "model": {"name_or_path": "o/m"}})
    assert expand_home(settings) is settings


@pytest.mark.parametrize(
    ("value", "role"),
    [("~/x.csv", Role.INPUT), ("~/*.csv", Role.FILES), ("~/x.csv", Role.MODEL), ("~/x.csv/out", Role.OUTPUT)],
)
def test_the_launcher_looks_for_a_tilde_at_home(home: Path, value: str, role: Role) -> None:
    path = NamedPath((), value, role)
    assert path.must_be_here
    assert path.found == []
    (home / "x.csv").mkdir()
    assert path.found == [home / "x.csv"]


def test_the_tilde_of_an_unknown_user_stays() -> None:
    assert at_home("~no-such-user/x") == Path("~no-such-user/x")


def test_a_deepspeed_file_may_lie_at_home(home: Path) -> None:
    (home / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    data = {"task_name": "rte", "data": {"generated": 8}, "model": {"allow_random_weights": True}}
    section = validate(GlueConfig, {**data, "deepspeed": {"config_file": "~/ds.json"}}).deepspeed
    assert section is not None
    assert section.stage == 2


# -- links that lead nowhere -----------------------------------------------------------------------------------------


def test_of_a_missing_path_the_link_that_leads_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "glue").mkdir()
    link, target = tmp_path / "glue" / "RTE", tmp_path / "elsewhere" / "RTE"
    link.symlink_to("../elsewhere/RTE")
    assert why_missing(tmp_path / "glue" / "CoLA") == ""
    for path in (link, link / "train.tsv"):
        assert why_missing(path) == f" ({link} is a link to {target}, which does not exist)"
    assert NamedPath((), str(link), Role.INPUT).missing == f"there is no {link}{why_missing(link)}"
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/neobert.sif")
    assert why_missing(link).startswith(f" ({link} is a link to {target}, which this container does not have. Add ")
    assert f"`binds: [{target}]` to the recipe" in why_missing(link)
    target.mkdir(parents=True)
    assert why_missing(link / "train.tsv") == ""


def test_of_a_directory_that_lacks_a_file_the_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """The hub's cache holds models like this: links to blobs, which lie beside the directory of the model."""
    (tmp_path / "model").mkdir()
    link = tmp_path / "model/model.safetensors"
    link.symlink_to("../blobs/abc")
    with pytest.raises(UnusableCheckpoint) as caught:
        find(tmp_path / "model")
    assert f"below checkpoints/ ({link} is a link to {tmp_path}/blobs/abc, which does not exist)" in str(caught.value)
    link.unlink()
    assert why_incomplete(tmp_path / "model") == ""


# -- files that are named and not used ------------------------------------------------------------------------------


def test_files_that_the_settings_do_not_use_need_not_exist() -> None:
    files = {name: f"{name}.csv" for name in ("train_file", "validation_file", "test_file")}
    data: dict[str, Any] = {"data": files, "model": {"name_or_path": "o/m"}}
    for settings, unused in (
        ({}, set()),
        ({"do_train": False}, {"train_file"}),
        ({"do_train": False, "do_eval": False}, {"train_file", "validation_file"}),
        ({"do_predict": False}, {"test_file"}),
    ):
        paths = named_paths(validate(GlueConfig, {**data, **settings}))
        assert {path.key[-1] for path in paths if path.role is Role.INPUT and not path.must_be_here} == unused
