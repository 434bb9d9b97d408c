from __future__ import annotations

from typing import Annotated, Any

import pytest

from neobert.config import TASKS, GlueConfig, PretrainConfig, Strict, validate
from neobert.config.hub import HubName, Kind, OnHub, each_once, hub_names
from neobert.config.paths import ModelPath, Role, marks_of


def found(model: type[Strict], data: dict[str, Any]) -> list[HubName]:
    return list(hub_names(validate(model, data)))


def test_names_are_found_by_their_marks_with_what_stands_beside_them_and_around() -> None:
    data = {"task_name": "rte", "data": {"hub": "nyu-mll/glue"},
            "model": {"name_or_path": "o/m", "revision": "v1", "tokenizer": "o/t"}}  # fmt: skip
    assert found(GlueConfig, data) == [
        HubName("model", "o/m", revision="v1"),
        HubName("tokenizer", "o/t"),
        HubName("dataset", "nyu-mll/glue", config="rte"),
    ]
    sources = [{"hub": "o/a"}, {"hub": "o/b", "hub_config": "en", "split": "test", "revision": "main"}]
    dataset = {"sources": sources, "streaming": True, "validation": {"hub": "o/v"}}
    data = {"tokenizer": {"name_or_path": "o/t"}, "dataset": dataset, "trainer": {"max_steps": 1}}
    assert found(PretrainConfig, data) == [
        HubName("tokenizer", "o/t"),
        HubName("text", "o/a", split="train"),
        HubName("text", "o/b", revision="main", config="en", split="test"),
        HubName("text", "o/v", split="train"),
    ]
    new = {"model": {"allow_random_weights": True}}
    assert found(GlueConfig, {"task_name": "rte", "data": {"generated": 8}, **new}) == []


@pytest.mark.parametrize(("task", "predicts", "configs"), [("mnli", True, ["mnli", "ax"]), ("mnli", False, ["mnli"]),
                                                            ("rte", True, ["rte"])])  # fmt: skip
def test_a_test_set_that_lies_elsewhere_is_needed_where_it_is_predicted(
    task: str, predicts: bool, configs: list[str]
) -> None:
    data = {"task_name": task, "do_predict": predicts, "data": {"hub": "nyu-mll/glue"}, "model": {"name_or_path": "m"}}
    assert [name.config for name in found(GlueConfig, data) if name.kind == "dataset"] == configs


def test_the_mark_is_all_that_a_new_task_needs() -> None:
    class Reranking(Strict):
        teachers: list[Annotated[ModelPath, OnHub("model", revision="commit")]]
        commit: str

    settings = Reranking(teachers=["o/a", "o/b"], commit="abc")
    assert list(hub_names(settings)) == [HubName("model", name, revision="abc") for name in ("o/a", "o/b")]


def test_every_setting_that_may_name_something_on_the_hub_is_marked() -> None:
    sections: list[Any] = list(TASKS.values())
    seen = 0
    for section in sections:
        for name, field in section.model_fields.items():
            marks = marks_of(section, name)
            if Role.MODEL in marks or name == "hub":
                assert any(isinstance(mark, OnHub) for mark in marks), f"{section.__name__}.{name}"
                seen += 1
            sections += [part for part in sections_in(field.annotation) if part not in sections]
    assert seen >= 7


def sections_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in sections_in(inner)]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("bert-base-uncased", HubName("model", "bert-base-uncased")),
        ("o/m@refs/pr/1", HubName("model", "o/m", revision="refs/pr/1")),
        ("o/t@v1", HubName("tokenizer", "o/t", revision="v1")),
        ("nyu-mll/glue:rte", HubName("dataset", "nyu-mll/glue", config="rte")),
        ("o/d@v1", HubName("dataset", "o/d", revision="v1")),
        ("o/c", HubName("text", "o/c", split="train")),
        ("o/c:20220301.en", HubName("text", "o/c", config="20220301.en", split="train")),
        ("o/c:en:validation@v1", HubName("text", "o/c", "v1", "en", "validation")),
        ("o/c::test", HubName("text", "o/c", split="test")),
    ],
)
def test_a_name_is_read_as_it_is_written(written: str, name: HubName) -> None:
    assert str(name) == written
    assert HubName.parse(name.kind, written) == name


@pytest.mark.parametrize(
    ("kind", "written"),
    [("model", ""), ("model", "o/m:x"), ("tokenizer", "a b"), ("dataset", "o/d:c:s"), ("text", "@v")],
)
def test_what_does_not_name_anything_is_refused(kind: Kind, written: str) -> None:
    with pytest.raises(ValueError, match=r"expected NAME.*, found "):
        HubName.parse(kind, written)


def test_each_is_needed_once_and_a_tokenizer_comes_with_its_model() -> None:
    model, other = HubName("model", "o/m", revision="v1"), HubName("tokenizer", "o/m")
    assert each_once([HubName("tokenizer", "o/m", revision="v1"), model, other, model]) == [model, other]


def test_a_directory_is_no_name_on_the_hub(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "bert").mkdir(parents=True)
    assert [HubName("model", name).is_here for name in ("mine/bert", "./x", "../x", "/x", "~/x", "o/m")] == [
        True, True, True, True, True, False,
    ]  # fmt: skip
