"""Tokens are made once, whoever asks for them, and never taken for those of other texts."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from neobert.data import token_cache
from neobert.data.examples import Examples
from neobert.data.tokenizing import Tokenized, tokenize

EXAMPLES = Examples([("the film is good", "it is"), ("a", "b"), ("x " * 50, "y")], [0, 1, 0])
COLUMNS = ["input_ids", "attention_mask"]


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEOBERT_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever something is tokenised."""
    times: list[int] = []

    def counted(examples: Examples, *more: Any) -> Tokenized:
        times.append(len(examples))
        time.sleep(0.2)
        return tokenize(examples, *more)

    monkeypatch.setattr(token_cache, "tokenize", counted)
    return times


def rows(found: Tokenized) -> list[tuple[list[int], float]]:
    return [(found[n]["input_ids"].tolist(), found[n]["labels"]) for n in range(len(found))]


def test_the_second_time_they_are_read(cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    first = token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    again = token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    assert made == [3]
    assert rows(again) == rows(first) == rows(tokenize(EXAMPLES, tokenizer, 16, COLUMNS))
    other_labels = token_cache.tokenized(Examples(EXAMPLES.texts, [1, 1, 1]), tokenizer, 16, COLUMNS)
    assert [label for _, label in rows(other_labels)] == [1, 1, 1]
    assert made == [3], "labels are not what is kept"


def test_whatever_changes_the_tokens_makes_others(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    token_cache.tokenized(EXAMPLES, tokenizer, 17, COLUMNS)
    token_cache.tokenized(EXAMPLES, tokenizer, 16, ["input_ids"])
    token_cache.tokenized(Examples([*EXAMPLES.texts[:2], ("x " * 50, "z")], [0, 1, 0]), tokenizer, 16, COLUMNS)
    token_cache.tokenized(Examples([("the film is", "good it is"), *EXAMPLES.texts[1:]], [0, 1, 0]), tokenizer, 16,
                          COLUMNS)  # fmt: skip
    tokenizer.truncation_side = "left"
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    assert made == [3] * 6


def test_those_who_start_together_make_them_once(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(token_cache.tokenized, EXAMPLES, tokenizer, 16, COLUMNS) for _ in range(4)]
    assert len({str(rows(job.result())) for job in jobs}) == 1
    assert made == [3]


def test_a_damaged_file_is_made_anew(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == before
    assert "is damaged and made anew" in caplog.text
    assert made == [3, 3]


def test_what_nobody_has_used_for_long_goes(cache: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    (path,) = cache.glob("*.npz")
    os.utime(path, (time.time() - 40 * 86400,) * 2)
    token_cache.tokenized(EXAMPLES, tokenizer, 20, COLUMNS)
    assert path not in list(cache.glob("*.npz"))


def test_where_nothing_can_be_written_it_works_all_the_same(
    tmp_path: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEOBERT_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        assert len(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == 3
    assert "NEOBERT_CACHE names another place" in caplog.text
