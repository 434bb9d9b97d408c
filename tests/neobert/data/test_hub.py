"""Data sets of the hub are brought into our order of classes; without a connection the message says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest

from neobert.config import ConfigError
from neobert.data.examples import Needed
from neobert.data.glue_tasks import TASKS
from neobert.data.hub import load_from_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Makes load_dataset give what the hub would."""

    def serve(splits: dict[str, Any]) -> None:
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))

    return serve


def rows(labels: list[Any], names: list[str] | None, **texts: list[Any]) -> datasets.Dataset:
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("float32")
    features = datasets.Features({name: datasets.Value("string") for name in texts} | {"label": kind})
    return datasets.Dataset.from_dict({**texts, "label": labels}, features=features)


def test_classes_in_another_order_become_ours(hub: Callable[[dict[str, Any]], None]) -> None:
    old_order = rows([0, 1, 2], ["contradiction", "entailment", "neutral"], premise=["a"] * 3, hypothesis=["b"] * 3)
    hub({"train": old_order, "validation_matched": old_order, "validation_mismatched": old_order})
    splits = load_from_hub("some/glue", TASKS["mnli"])
    assert splits.train.labels == [2, 0, 1]
    assert splits.train.texts == [("a", "b")] * 3
    assert set(splits.dev) == {"", "_mm"}
    assert splits.source == "hub"


def test_a_regression_keeps_its_numbers(hub: Callable[[dict[str, Any]], None]) -> None:
    scores = rows([0.5, 4.0], None, sentence1=["a", "b"], sentence2=["c", "d"])
    hub({"train": scores, "validation": scores})
    assert load_from_hub("some/glue", TASKS["stsb"]).dev[""].labels == [0.5, 4.0]


def test_only_what_is_needed_is_looked_for(hub: Callable[[dict[str, Any]], None]) -> None:
    some = rows([0], ["entailment", "not_entailment"], sentence1=["a"], sentence2=["b"])
    hub({"validation": some})
    looked = load_from_hub("some/glue", TASKS["rte"], Needed(train=False))
    assert (len(looked.train), len(looked.dev[""]), looked.some()) == (0, 1, looked.dev[""])
    hub({"test": some})
    said = load_from_hub("some/glue", TASKS["rte"], Needed(train=False, dev=False, tests=True))
    assert (said.dev, said.some().texts) == ({}, [("a", "b")])


def test_what_does_not_fit_is_named(hub: Callable[[dict[str, Any]], None]) -> None:
    wrong = rows([0], ["yes", "no"], sentence1=["a"], sentence2=["b"])
    hub({"train": wrong, "validation": wrong})
    with pytest.raises(ConfigError, match=r"has the classes \['yes', 'no'\], expected entailment, not_entailment"):
        load_from_hub("some/glue", TASKS["rte"])
    hub({"train": rows([0], ["negative", "positive"], sentence=["a"])})
    with pytest.raises(ConfigError, match="has no split 'validation'; it has train"):
        load_from_hub("some/glue", TASKS["sst2"])
    hub({"train": wrong, "validation": wrong})
    with pytest.raises(ConfigError, match="has no column question, sentence"):
        load_from_hub("some/glue", TASKS["qnli"])


@pytest.mark.parametrize(
    ("task", "labels", "names", "text", "message"),
    [
        ("sst2", [0, -1], ["negative", "positive"], "a", "the label is -1, expected one from 0 to 1: it is hidden"),
        ("sst2", [0, None], ["negative", "positive"], "a", "the label is None, expected one from 0 to 1"),
        ("sst2", [0, 1], ["negative", "positive"], None, "sentence is None, expected text"),
        ("stsb", [0.5, -1.0], None, "a", "the label is '-1.0', expected a number from 0 to 5"),
        ("stsb", [0.5, None], None, "a", "the label is 'None', expected a number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    hub: Callable[[dict[str, Any]], None], task: str, labels: list[Any], names: list[str] | None, text: str | None,
    message: str,
) -> None:  # fmt: skip
    columns = TASKS[task].sentences
    good = rows(labels[:1] * 2, names, **{column: ["a", "b"] for column in columns})
    bad = rows(labels, names, **{column: ["a", text] for column in columns})
    hub({"train": good, "validation": bad})
    with pytest.raises(ConfigError) as caught:
        load_from_hub("some/glue", TASKS[task])
    assert str(caught.value).startswith(f"data.hub: 'some/glue': row 1 (from 0) of validation: {message}")


def test_without_a_connection_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConfigError) as caught:
        load_from_hub("nyu-mll/glue", TASKS["rte"])
    message = str(caught.value)
    assert message.startswith("data.hub: 'nyu-mll/glue' (rte) could not be loaded: Couldn't reach the Hub\n")
    assert "data.dir" in message
    assert "`recipe fetch RECIPE`, or `neobert fetch --dataset nyu-mll/glue:rte`" in message
