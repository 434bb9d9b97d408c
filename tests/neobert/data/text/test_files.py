"""Files are found once each and in a stable order; remote ones are asked again before a failure is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from neobert.config import ConfigError
from neobert.data.text import files
from neobert.data.text.documents import Reader, blocks
from neobert.data.text.files import find, find_on_hub, kind_of, opened, size_and_version
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


def touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")


def names(found: list[str], below: Path) -> list[str]:
    return [str(Path(path).relative_to(below)) for path in found]


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


def test_a_directory_stands_for_the_text_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "a/2.jsonl", "a/1.txt.gz", "README.md", ".hidden.txt", ".git/x.txt", "a/.1.txt.swp")
    assert names(find([str(tmp_path)]), tmp_path) == ["a/1.txt.gz", "a/2.jsonl", "b.txt"]


def test_patterns_are_expanded_and_sorted_and_their_order_kept(tmp_path: Path) -> None:
    touch(tmp_path, "x/b.txt", "x/a.txt", "w/c.txt", "odd[1].txt")
    given = [str(tmp_path / name) for name in ("x/*.txt", "w/c.txt", "odd[1].txt")]
    assert names(find(given), tmp_path) == ["x/a.txt", "x/b.txt", "w/c.txt", "odd[1].txt"]
    assert names(find([str(tmp_path / "**" / "*.txt")]), tmp_path) == ["odd[1].txt", "w/c.txt", "x/a.txt", "x/b.txt"]


def test_a_file_that_is_named_in_several_ways_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "x/a.txt", "x/b.txt")
    (tmp_path / "link.txt").symlink_to("x/b.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("neobert"), "propagate", True)
    with caplog.at_level(logging.INFO):
        found = find(["x", "./x/a.txt", str(tmp_path / "x" / "a.txt"), "link.txt"])
    assert found == ["x/a.txt", "x/b.txt"]
    assert "3 of 5 files are named twice, and read once" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.txt", r"none.txt: there is no such file \(here: "),
        ("no*.txt", r"no\*.txt: there is no such file"),
        ("empty", r"empty: the directory holds no file of text \(expected .txt, .*also compressed: .gz"),
        ("memory://nowhere/*.txt", r"memory://nowhere/\*.txt: there is no such file"),
        ("memory://nowhere", r"memory://nowhere: there is no such file"),
        ("nosuch://bucket/a.txt", r"nosuch://bucket/a.txt: .*Protocol not known: nosuch"),
    ],
)
def test_what_stands_for_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "empty/README.md")
    with pytest.raises(ConfigError, match=message):
        find([pattern])


def test_of_a_saved_data_set_only_its_rows_are_taken(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": [f"row {number}" for number in range(20)]})
    saved = tmp_path / "saved"
    rows.save_to_disk(saved, num_shards=2)
    again = datasets.load_from_disk(saved)
    again.map(lambda row: {"text": row["text"] + "!"})  # leaves a cache of its own in the directory
    assert len(list(saved.glob("*.arrow"))) == 3
    found = find([str(saved)])
    assert names(found, saved) == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    texts = [text for block in blocks(found, Reader()) for text in Reader().documents(block)]
    assert texts == [f"row {number}" for number in range(20)]


def test_of_several_saved_data_sets_one_must_be_named(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match="holds several data sets; name one of them: test, train"):
        find([str(tmp_path / "saved")])
    assert len(find([str(tmp_path / "saved" / "train")])) == 1


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


# -- the hub: its library with a data set in a directory, which it takes for one of the hub -------------------------


@pytest.fixture
def local_data_set(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for number in range(2):
            path = tmp_path / "corpus" / "data" / f"{split}-{number:05d}-of-00002.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"text": f"{split} {number}"}) + "\n")
    return tmp_path / "corpus"


def test_a_data_set_on_the_hub_is_the_list_of_its_files(local_data_set: Path) -> None:
    found = find_on_hub(str(local_data_set), None, "train", None)
    texts = [text for block in blocks(found, Reader()) for text in Reader().documents(block)]
    assert texts == ["train 0", "train 1"]
    with pytest.raises(ConfigError, match="has no split 'validation'; there are train, test"):
        find_on_hub(str(local_data_set), None, "validation", None)


def test_without_a_connection_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as caught:
        find_on_hub("some-owner/no-such-corpus", None, "train", None)
    first, second, _ = str(caught.value).splitlines()
    assert first.startswith("'some-owner/no-such-corpus': the hub did not give such a data set: ")
    assert "`recipe fetch RECIPE`, or `neobert fetch --text some-owner/no-such-corpus`" in second
