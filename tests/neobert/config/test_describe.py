from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from neobert.config import TASKS, Strict
from neobert.config.describe import describe


class Inner(Strict):
    size: int | None = Field(None, description="of something")
    pair: tuple[float, float] = (0.9, 1e-8)


class Outer(Strict):
    name: str
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    many: list[Inner] | None = None
    words: list[str] = []
    on: Literal["auto", True] | str = "auto"


def test_every_key_is_told_with_what_it_takes_its_default_and_its_meaning() -> None:
    assert describe(Outer).splitlines() == [
        "  name: text  (required)",
        "  kind: a|b  (a)",
        "  inner.size: int",
        "    of something",
        "  inner.pair: [number, number]  ([0.9, 1e-08])",
        "  many[…].size: int",
        "    of something",
        "  many[…].pair: [number, number]  ([0.9, 1e-08])",
        "  words: [text, …]  ([])",
        "  on: auto|true|text  (auto)",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_no_key_of_a_task_is_without_a_word_for_what_it_takes(task: str) -> None:
    told = describe(TASKS[task])
    assert ": value" not in told
    assert max(map(len, told.splitlines())) <= 120
