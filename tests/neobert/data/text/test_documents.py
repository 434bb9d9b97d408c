"""The documents of a file are the same in blocks of any size, and what is wrong with one is told with its place."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neobert.config import ConfigError
from neobert.data.text import documents
from neobert.data.text.documents import Reader, blocks
from neobert.errors import RunError

LINES = Reader()


def read(path: Path | str, reader: Reader = LINES) -> list[str]:
    return [text for block in blocks([str(path)], reader) for text in reader.documents(block)]


def table(texts: list[Any], column: str = "text", **more: list[Any]) -> pyarrow.Table:
    return pyarrow.table({**more, column: texts})


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return sink.getvalue().to_pybytes()


# -- text and JSON lines ----------------------------------------------------------------------------------------------

TEXT = "ersté line\r\n\nsecond 😀\n   \n\r\nthird\x0bwith odd\u2028separators\n" + "x" * 100 + "\nlast without end"
EXPECTED = ["ersté line", "second 😀", "third\x0bwith odd\u2028separators", "x" * 100, "last without end"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 64, 1000])
def test_lines_are_the_same_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(documents, "BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    found = blocks([str(path)], Reader())
    assert len(found) == -(-len(TEXT.encode()) // size)
    assert sum(block.size for block in found) == len(TEXT.encode())
    assert read(path) == EXPECTED


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(st.text(st.sampled_from("ab é😀\r\t"), max_size=8), max_size=12), size=st.integers(1, 40),
       ends=st.booleans())  # fmt: skip
def test_no_line_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(("\n".join(lines) + "\n" * ends).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BYTES", size)
        assert read(path) == [line.rstrip("\r") for line in lines if line.strip()]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n')
    assert read(tmp_path / "a.txt") == read(tmp_path / "a.jsonl") == ["one", "two"]
    assert read(tmp_path / "a.txt", Reader(whole_files=True)) == ["one\ntwo\n"]


def test_a_line_longer_than_many_blocks_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BYTES", 1000)
    path = tmp_path / "a.txt"
    long = "y" * 200_000
    path.write_text(f"first\n{long}\nlast\n")
    fetched = 0
    opened = documents.opened

    class Counting(io.BufferedReader):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal fetched
            line = super().readline(size)
            fetched += len(line)
            return line

    monkeypatch.setattr(documents, "opened", lambda path, *_: Counting(io.FileIO(path)))
    assert read(path) == ["first", long, "last"]
    monkeypatch.setattr(documents, "opened", opened)
    assert fetched < 3 * 200_000, "each block reads no more than itself, but for the line that begins in it"


def test_a_file_can_be_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read(tmp_path / "a.txt", Reader(whole_files=True)) == ["one\n\ntwo\n"]


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).touch()
        assert read(tmp_path / name) == []


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)]
)
def test_compressed_files_are_read_and_cut_off_ones_refused(
    tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    lines = [f"line {number} {number * 7919 % 10007}" for number in range(5000)]
    data = compress("\n".join(lines).encode())
    path = tmp_path / f"a.txt.{ending}"
    path.write_bytes(data)
    assert read(path) == lines
    assert len(blocks([str(path)], Reader())) == 1
    rows = tmp_path / f"a.jsonl.{ending}"
    rows.write_bytes(compress(b'{"text": "a"}\n'))
    assert read(rows) == ["a"]
    for damaged in (data[: len(data) // 2], b"no such thing"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=rf"^{path}: is damaged, or not what its name says: \w"):
            read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'text': 1}", "expected an object of JSON in each line: Expecting property name"),
        ("[", "expected an object of JSON in each line: Expecting value"),
        ('["a"]', r'expected an object of JSON in each line, found \["a"\]'),
        ('"text"', 'expected an object of JSON in each line, found "text"'),
        ('{"content": "a", "id": 3}', r"has no 'text'; there are content, id \(text_column names it\)"),
        ('{"text": null}', "text is null, expected text"),
        ('{"text": ["a"]}', "text is list, expected text"),
        (r'{"text": "a\ud800b"}', r"text holds half a character \(\\ud800\)"),
        ("[" * 100_000, "expected an object of JSON in each line: "),
    ],
)
def test_a_line_that_is_no_document_is_told_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "good"}) + "\n\n" + line + "\n")
    with pytest.raises(ConfigError, match=f"^{path}, at byte 18: {message}"):
        read(path)


def test_another_column_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 1, "content": "one"}\n')
    assert read(tmp_path / "a.jsonl", Reader(column="content")) == ["one"]


@pytest.mark.parametrize("size", [4, 1000])
def test_what_is_not_utf8_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(documents, "BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nna\xefve\n")
    with pytest.raises(ConfigError, match=f"^{path}, at byte 7: is not UTF-8: there stands 0xef. Convert the text"):
        read(path)
    path.write_text("wide", encoding="utf-16")
    with pytest.raises(ConfigError, match=f"^{path}, at byte 0: is not UTF-8: there stands 0xff. Convert the text"):
        read(path, Reader(whole_files=True))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_what_is_not_utf8_in_a_table_is_told_with_its_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    texts = pyarrow.array([b"good", b"na\xefve", b"good"]).view(pyarrow.string())
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        with pyarrow.ipc.new_file(path, pyarrow.schema({"text": pyarrow.string()})) as file:
            file.write_table(pyarrow.table({"text": texts}))
    with pytest.raises(ConfigError, match=rf"^{path}, row 1 \(from 0\): is not UTF-8: there stands 0xef"):
        read(path)


# -- parquet and arrow ------------------------------------------------------------------------------------------------


def test_a_block_of_parquet_is_a_row_group(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(1000)]
    path = tmp_path / "a.parquet"
    other = [b"x" * 500] * 1000
    pyarrow.parquet.write_table(table(texts, other=other), path, row_group_size=300, compression="none")
    found = blocks([str(path)], Reader())
    assert [(block.start, block.stop) for block in found] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert all(block.size < 10_000 for block in found), "of the size, only the column with the text counts"
    assert list(Reader().documents(found[1])) == texts[300:600]
    assert read(path) == texts


def test_a_large_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table([f"{number} " * 2000 for number in range(5000)]), path, row_group_size=5000)
    (block,) = blocks([str(path)], Reader())
    before = pyarrow.total_allocated_bytes()
    peak = 0
    for _ in Reader().documents(block):
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert peak < block.size / 2


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_both_formats_of_arrow_are_read_in_blocks_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    texts = [f"row {number}" for number in range(1000)]
    path = tmp_path / "a.arrow"
    if kind == "stream":
        datasets.Dataset.from_dict({"text": texts, "id": range(1000)}).save_to_disk(tmp_path / "saved")
        (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(path)
    else:
        pyarrow.feather.write_feather(table(texts), path, chunksize=70, compression="zstd")
    monkeypatch.setattr(documents, "ROWS", 300)
    found = blocks([str(path)], Reader())
    assert [(block.start, block.stop) for block in found] == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert list(Reader().documents(found[2])) == texts[600:900]
    assert read(path) == texts


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.arrow"])
def test_every_format_is_read_remotely(tmp_path: Path, name: str) -> None:
    texts = [f"row {number}" for number in range(600)]
    path = tmp_path / name
    match path.suffix:
        case ".txt":
            path.write_text("\n".join(texts))
        case ".jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        case ".parquet":
            pyarrow.parquet.write_table(table(texts), path, row_group_size=250)
        case ".arrow":
            pyarrow.feather.write_feather(table(texts), path, compression="uncompressed")
    with fsspec.open(f"memory://remote/{name}", "wb") as file:
        file.write(path.read_bytes())
    assert read(f"memory://remote/{name}") == read(path) == texts


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_columns_that_are_no_text_are_told(tmp_path: Path, name: str) -> None:
    def write(found: pyarrow.Table) -> Path:
        path = tmp_path / name
        if name == "a.parquet":
            pyarrow.parquet.write_table(found, path, row_group_size=2)
        else:
            pyarrow.feather.write_feather(found, path, chunksize=2)
        return path

    path = write(table(["a"], column="content"))
    with pytest.raises(ConfigError, match=rf"^{path}: has no column 'text'; there are content \(text_column names it"):
        read(path)
    path = write(table(["a", "b", "c", None, "e"]))
    with pytest.raises(ConfigError, match=rf"^{path}, row 3 \(from 0\): text is null, expected text$"):
        read(path)
    path = write(table([["a"], ["b"]]))
    with pytest.raises(ConfigError, match=rf"^{path}, row 0 \(from 0\): text is list, expected text$"):
        read(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"plain text, and quite a lot of it")
    with pytest.raises(ConfigError, match=rf"^{path}: is damaged, or not what its name says: \w"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"^{path}: is damaged, or not what its name says: \w"):
        read(path)


# -- what goes for all ------------------------------------------------------------------------------------------------


def test_a_name_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.csv: the name does not tell what it is \(expected \.txt, "):
        blocks([str(tmp_path / "a.csv")], Reader())


def test_a_file_that_went_away_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    (block,) = blocks([str(path)], Reader())
    path.unlink()
    with pytest.raises(ConfigError, match=f"^{path}: there is no such file$"):
        list(Reader().documents(block))


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    (block,) = blocks([str(path)], Reader())
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=f"^{path}: Is a directory$"):
        list(Reader().documents(block))


def test_blocks_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 200_000)
    tracemalloc.start()
    found = blocks([str(path)], Reader())
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(found) < 200, "a terabyte has millions of them"
