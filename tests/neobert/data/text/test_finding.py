"""Files are found once each and in a stable order, and the log tells what of a directory is read and what is not."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import datasets
import fsspec
import pytest

from neobert.config import ConfigError
from neobert.data.text.documents import Reader, blocks
from neobert.data.text.finding import find, find_on_hub


def touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")


def names(found: list[str], below: Path) -> list[str]:
    return [str(Path(path).relative_to(below)) for path in found]


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


# -- what of a directory is read ------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("neobert"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def test_the_log_lists_what_of_a_directory_is_read_and_what_is_not(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "b.txt", "a/1.txt.gz", "README.md", "image.png", "b.txt.bak", "a/.hidden.txt", ".git/x.txt")
    assert names(find([str(tmp_path)]), tmp_path) == ["a/1.txt.gz", "b.txt"]
    assert [record.getMessage() for record in log.records] == [
        f"{tmp_path}: reading 2 of 7 files: a/1.txt.gz, b.txt",
        f"{tmp_path}: not read: .git (hidden), README.md (its name does not say that it is text), a/.hidden.txt "
        "(hidden), b.txt.bak (its name does not say that it is text), image.png (its name does not say that it is "
        "text)",
    ]


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ('{"name": "corpus", "license": "CC0"}', "no 'text' in its first line (text_column names it)"),
        ('{\n  "text": "corpus"\n}', "not an object of JSON in each line"),
        ('[{"text": "a"}]', "not an object of JSON in each line"),
    ],
)
def test_a_json_file_without_documents_in_a_directory_is_left_out_loudly(
    tmp_path: Path, log: pytest.LogCaptureFixture, contents: str, why: str
) -> None:
    touch(tmp_path, "a.txt")
    (tmp_path / "meta.json").write_text(contents)
    with gzip.open(tmp_path / "meta.json.gz", "wt") as file:
        file.write(contents)
    assert names(find([str(tmp_path)]), tmp_path) == ["a.txt"]
    assert (log.records[-1].levelname, log.records[-1].getMessage()) == (
        "WARNING", f"{tmp_path}: not read: meta.json ({why}), meta.json.gz ({why})"
    )  # fmt: skip


def test_a_json_file_with_documents_is_read_by_the_column_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\n{"content": "a"}\n{"content": "b"}\n')
    assert names(find([str(tmp_path)], "content"), tmp_path) == ["a.json"]
    with pytest.raises(ConfigError, match=r"the directory holds no file of text .*; not read: a.json \(no 'text' in"):
        find([str(tmp_path)])


@pytest.mark.parametrize("name", ["meta.json", "*.json"])
def test_a_json_file_that_is_named_must_hold_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / "meta.json").write_text('{"name": "corpus"}\n')
    found = find([str(tmp_path / name)])
    with pytest.raises(ConfigError, match=r"meta.json, at byte 0: has no 'text'; there are name"):
        list(Reader().documents(blocks(found, Reader())[0]))


def test_jsonl_is_always_data_so_that_none_is_lost(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    (tmp_path / "b.jsonl").write_text('{"content": "b"}\n')
    assert names(find([str(tmp_path)]), tmp_path) == ["a.txt", "b.jsonl"]


def test_what_of_a_remote_directory_or_pattern_is_not_read_is_told_as_well(log: pytest.LogCaptureFixture) -> None:
    for name, contents in (("a.txt", b"a"), ("meta.json", b"{}"), ("README.md", b"x")):
        with fsspec.open(f"memory://finding/{name}", "wb") as file:
            file.write(contents)
    assert find(["memory://finding"]) == ["memory:///finding/a.txt"]
    assert "finding/README.md (its name does not say that it is text)" in log.text
    assert "finding/meta.json (no 'text' in its first line" in log.text
    log.clear()
    assert find(["memory://finding/*.*"]) == ["memory:///finding/a.txt", "memory:///finding/meta.json"]
    assert "not read: " in log.text


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    message = rf"there is no such file \({tmp_path}/a.txt is a link to {tmp_path}/gone.txt, which does not exist\)"
    with pytest.raises(ConfigError, match=message):
        find([str(tmp_path / "a.txt")])
    with pytest.raises(ConfigError, match=message):
        blocks(find([str(tmp_path)]), Reader())


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
