"""Tokens are made once, whoever asks for them, and never taken for those of other texts."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from neobert.data import token_cache
from neobert.data.examples import Examples
from neobert.data.tokenizing import Tokenized, tokenize
from tests.neobert.conftest import REPOSITORY, TINY
from tests.no_flock import COMMAND as NO_FLOCK

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


def changed(**arrays: Any) -> Callable[[Path], None]:
    """Well-formed files all the same: `None` leaves an array out."""

    def change(path: Path) -> None:
        with np.load(path) as kept:
            found = {name: kept[name] for name in kept.files} | arrays
        np.savez(path, **{name: array for name, array in found.items() if array is not None})

    return change


def single(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        changed(lengths=None),
        changed(lengths=np.array([1, 1])),
        changed(lengths=np.array([3, 3, 3])),
        changed(lengths=np.zeros(3)),
        changed(input_ids=None),
        changed(more=np.array([1])),
        single,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(1000)),
    ],
)
def test_a_file_that_holds_something_else_is_made_anew(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, damage: Callable[[Path], None]
) -> None:
    before = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    (path,) = cache.glob("*.npz")
    damage(path)
    assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == before
    assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == before
    assert made == [3, 3]


def test_without_locks_each_makes_them_for_itself(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.INFO):
        first = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    assert "tokens are made without a look at who else makes them" in caplog.text
    assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == first
    assert made == [3]


def test_a_training_runs_where_the_file_system_has_no_flock(cache: Path, tmp_path: Path) -> None:
    """The kernel refuses it here, for torch and the libraries of Hugging Face as well."""
    words = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=rte", "data.generated=16"]
    command = [*NO_FLOCK, *words, "--output-dir", str(tmp_path / "out")]
    environment = os.environ | {"NEOBERT_CACHE": str(tmp_path / "kept")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tokens are made without a look at who else makes them" in done.stdout
    assert list((tmp_path / "kept").rglob("*.npz"))


def test_a_shared_cache_is_open_to_all_who_may_use_its_directory(
    cache: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    cache.parent.chmod(0o2770)
    before = os.umask(0o077)
    try:
        token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    finally:
        os.umask(before)
    modes = {path.suffix: path.stat().st_mode & 0o7777 for path in (cache, *cache.iterdir())}
    assert modes == {"": 0o2770, ".npz": 0o660, ".lock": 0o660}


@pytest.mark.usefixtures("root")
def test_another_user_finds_what_is_there_and_makes_what_is_not(
    made: list[int], tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory as /tmp, where nobody touches the files of others; one of them is old, and one is locked shut."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shared = Path(place, "shared")
        shared.mkdir()
        shared.chmod(0o1777)
        monkeypatch.setenv("NEOBERT_CACHE", str(shared))
        first = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
        token_cache.tokenized(EXAMPLES, tokenizer, 20, COLUMNS)
        for path, mtime in zip(sorted((shared / "tokens").glob("*.npz")), (time.time(), 0.0), strict=True):
            os.utime(path, (mtime, mtime))
            path.with_suffix(".lock").chmod(0o600)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == first
            token_cache.tokenized(EXAMPLES, tokenizer, 20, COLUMNS)
            assert made == [3, 3]
            token_cache.tokenized(EXAMPLES, tokenizer, 17, COLUMNS)
        finally:
            os.seteuid(0)
            os.setegid(0)
        assert made == [3, 3, 3]


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
