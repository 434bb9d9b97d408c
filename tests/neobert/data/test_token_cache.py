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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    return tmp_path / f"tokens-{os.geteuid()}"


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


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch, root: None) -> Iterator[Path]:
    """A cache that everybody can write to; this process is root, and can become somebody else."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shared = Path(place, "shared")
        shared.mkdir()
        shared.chmod(0o1777)
        monkeypatch.setenv("NEOBERT_CACHE", str(shared))
        yield shared


@contextmanager
def somebody_else() -> Iterator[None]:
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_in_a_cache_of_many_each_user_has_their_own(
    strangers: Path, made: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    first = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    with somebody_else():
        for _ in range(2):
            assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == first
    assert made == [3, 3]
    for uid in (0, 65534):
        (kept,) = (strangers / f"tokens-{uid}").glob("*.npz")
        assert (kept.stat().st_uid, kept.stat().st_mode & 0o7777) == (uid, 0o600)
        assert kept.parent.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("trap", ["directory", "link to a directory"])
def test_a_directory_that_somebody_else_has_put_there_is_not_used(
    strangers: Path, tmp_path: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, trap: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    mine = tmp_path / "mine"
    mine.mkdir()
    with somebody_else():
        place = strangers / "tokens-0"
        place.mkdir(mode=0o777) if trap == "directory" else place.symlink_to(mine)
    for _ in range(2):
        token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    assert made == [3, 3]
    why = "belongs to nobody" if trap == "directory" else f"is a link (to {mine})"
    assert f"tokens are not kept: {strangers / 'tokens-0'}: {why}" in caplog.text
    assert not list(mine.iterdir())
    assert not list((strangers / "tokens-0").iterdir())


def test_a_link_in_the_place_of_a_lock_is_not_followed(
    cache: Path, tmp_path: Path, made: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    (kept,) = cache.glob("*.npz")
    secret = tmp_path / "id_ed25519"
    secret.write_text("secret")
    secret.chmod(0o600)
    kept.with_suffix(".lock").unlink()
    kept.with_suffix(".lock").symlink_to(secret)
    kept.unlink()
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    assert (secret.read_text(), secret.stat().st_mode & 0o7777) == ("secret", 0o600)
    assert made == [3, 3]


def plant(kept: Path, trap: str) -> str:
    """Let others have something to do with a file of the cache; return what a training says of it."""
    if trap == "writable":
        kept.chmod(0o666)
        return "can be written by others (its mode is 0666)"
    if trap == "pipe":
        kept.unlink()
        os.mkfifo(kept, 0o600)
        return "is not a file"
    if trap == "link":
        kept.rename(kept.with_suffix(".other"))
        kept.symlink_to(kept.with_suffix(".other"))
        return f"is a link (to {kept.with_suffix('.other')})"
    os.chown(kept, 65534, -1)
    return "belongs to nobody"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("trap", ["writable", "pipe", "link", "of another user"])
def test_what_others_may_have_written_is_made_anew(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, trap: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    (kept,) = cache.glob("*.npz")
    why = plant(kept, trap)
    for _ in range(2):
        assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == first
    assert f"{kept} is made anew: it {why}" in caplog.text
    assert made == [3, 3]


def test_tokens_of_other_texts_under_that_name_are_made_anew(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    first = rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS))
    (kept,) = cache.glob("*.npz")
    others = Examples([(b, a) for a, b in EXAMPLES.texts], EXAMPLES.labels)
    token_cache.tokenized(others, tokenizer, 16, COLUMNS)
    (other,) = set(cache.glob("*.npz")) - {kept}
    other.replace(kept)
    assert rows(token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)) == first
    assert made == [3, 3, 3]


def test_a_lock_that_is_held_for_ever_holds_up_no_training(
    cache: Path, made: list[int], tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(token_cache, "PATIENCE_SECONDS", 0.1)
    token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    (kept,) = cache.glob("*.npz")
    kept.unlink()
    with kept.with_suffix(".lock").open() as holder, caplog.at_level(logging.INFO):
        fcntl.flock(holder, fcntl.LOCK_EX)
        token_cache.tokenized(EXAMPLES, tokenizer, 16, COLUMNS)
    assert made == [3, 3]
    assert "another process holds its lock" in caplog.text


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
