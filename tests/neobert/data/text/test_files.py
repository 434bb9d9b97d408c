"""Remote files are read like those of this machine, and asked again before a failure is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from neobert.config import ConfigError
from neobert.data.text import files
from neobert.data.text.documents import Reader, blocks
from neobert.data.text.files import kind_of, opened, size_and_version
from neobert.data.text.finding import find
from neobert.errors import RunError


class FlakyFileSystem(MemoryFileSystem):
    """Files in memory; as many of its answers as `failures` says are errors, by the name of the operation."""

    protocol = "flaky"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    failures: dict[str, int] = {}
    calls: list[str] = []

    def _maybe_fail(self, operation: str) -> None:
        type(self).calls.append(operation)
        if type(self).failures.get(operation, 0):
            type(self).failures[operation] -= 1
            raise ConnectionResetError(f"{operation} was cut off\nand more")

    def info(self, path: str, **options: Any) -> Any:
        self._maybe_fail("info")
        return super().info(path, **options)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        self._maybe_fail("find")
        return super().find(path, *args, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self._maybe_fail("open")
        file = super()._open(path, mode, **options)
        if mode == "rb":
            read = file.readinto

            def readinto(buffer: Any) -> int:
                self._maybe_fail("read")
                return read(memoryview(buffer)[:64])  # in small bites, so that it fails in the middle

            file.readinto = readinto
        return file


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.store.clear()
    FlakyFileSystem.failures = {}
    monkeypatch.setattr(files, "FIRST_WAIT", 0.0)
    with fsspec.open("flaky://corpus/a.txt", "wb") as file:
        file.write(b"".join(b"document %03d\n" % number for number in range(200)))
    FlakyFileSystem.calls = []
    yield FlakyFileSystem


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"), ("a.TXT", "text"), ("a.txt.gz", "text"), ("a.jsonl.zst", "jsonl"), ("a.json", "jsonl"),
        ("a.b.parquet", "parquet"), ("a.arrow", "arrow"), ("https://host/a.jsonl.gz?download=true#x", "jsonl"),
        ("hf://datasets/o/n@main/data/a.parquet", "parquet"),
        ("a", None), ("a.csv", None), ("a.gz", None), ("txt", None), ("a.parquet.gz", None), ("a.txt.gz.bz2", None),
    ],
)  # fmt: skip
def test_the_name_tells_what_it_is(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_remote_files_are_found_like_local_ones(flaky: type[FlakyFileSystem]) -> None:
    for name in ("corpus/sub/b.jsonl", "corpus/c.md", "other/d.txt"):
        with fsspec.open(f"flaky://{name}", "wb") as file:
            file.write(b"x")
    assert find(["flaky://corpus/*.txt"]) == ["flaky://corpus/a.txt"]
    assert find(["flaky://corpus"]) == ["flaky://corpus/a.txt", "flaky://corpus/sub/b.jsonl"]
    assert find(["flaky://other/d.txt", "flaky://corpus/a.txt"]) == ["flaky://other/d.txt", "flaky://corpus/a.txt"]


@pytest.mark.parametrize("operation", ["info", "open", "read", "find"])
def test_a_remote_file_that_fails_a_few_times_is_read_all_the_same(
    flaky: type[FlakyFileSystem], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(logging.getLogger("neobert"), "propagate", True)
    flaky.failures = {operation: files.TRIES - 1}
    found = find(["flaky://corpus"])
    documents = [text for block in blocks(found, Reader()) for text in Reader().documents(block)]
    assert documents == [f"document {number:03d}" for number in range(200)]
    assert flaky.calls.count(operation) >= files.TRIES
    assert f"{operation} was cut off; next try in" in caplog.text
    assert "and more" not in caplog.text


def test_a_read_that_fails_in_the_middle_gives_no_document_twice(flaky: type[FlakyFileSystem]) -> None:
    (block,) = blocks(["flaky://corpus/a.txt"], Reader())
    found = []
    for text in Reader().documents(block):
        found.append(text)
        if len(found) % 50 == 0:  # more failures than would be borne in a row, but there is progress between them
            flaky.failures = {"read": 3}
    assert found == [f"document {number:03d}" for number in range(200)]


@pytest.mark.parametrize("operation", ["info", "open", "read"])
def test_a_remote_file_that_keeps_failing_is_named(flaky: type[FlakyFileSystem], operation: str) -> None:
    flaky.failures = {operation: 1000}
    with pytest.raises(RunError) as caught:
        for block in blocks(["flaky://corpus/a.txt"], Reader()):
            list(Reader().documents(block))
    assert str(caught.value) == f"flaky://corpus/a.txt cannot be read, after 6 tries: {operation} was cut off"
    assert flaky.calls.count(operation) == files.TRIES


def test_a_remote_file_that_is_not_there_is_not_asked_for_again(flaky: type[FlakyFileSystem]) -> None:
    with pytest.raises(ConfigError, match=r"^flaky://corpus/none.txt: there is no such file$"):
        blocks(["flaky://corpus/none.txt"], Reader())
    assert flaky.calls == ["info"]


def test_waits_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waits.append)
    for failures in range(1, files.TRIES):
        files.after_failure("s3://a/b.txt", failures, TimeoutError("late"))
    assert waits == [1, 2, 4, 8, 16]


def test_a_mistake_of_ours_is_not_taken_for_a_damaged_file() -> None:
    with pytest.raises(AttributeError, match="ours"):
        files.after_failure("a.txt", 1, AttributeError("ours"))


def test_remote_lines_are_not_fetched_one_by_one(flaky: type[FlakyFileSystem]) -> None:
    (block,) = blocks(["flaky://corpus/a.txt"], Reader())
    flaky.calls = []
    assert len(list(Reader().documents(block))) == 200
    assert flaky.calls.count("read") <= 200 * 13 // 64 + 3


def test_the_version_of_a_file_changes_with_it(tmp_path: Path, flaky: type[FlakyFileSystem]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = size_and_version(str(path))
    path.write_text("two!")
    assert (before[0], size_and_version(str(path))[0]) == (3, 4)
    assert before[1] != size_and_version(str(path))[1]
    with fsspec.open("flaky://v.txt", "wb") as file:
        file.write(b"12345")
    assert size_and_version("flaky://v.txt") == (5, "5")


def test_a_server_that_does_not_tell_the_size_is_refused(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flaky, "info", lambda *_, **__: {"size": None, "type": "file"})
    with pytest.raises(ConfigError, match=r"flaky://corpus/a.txt: the server does not say how large it is"):
        size_and_version("flaky://corpus/a.txt")


def test_opened_gives_the_bytes(flaky: type[FlakyFileSystem]) -> None:
    with opened("flaky://corpus/a.txt", 10) as file:
        file.seek(13)
        assert file.readline() == b"document 001\n"
