"""Documents out of files, in blocks that can be read by themselves and in any order.

A text file holds a document a line, or is one as a whole; lines of JSON, rows of parquet and of arrow have it in a
column.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from neobert.config import ConfigError
from neobert.data.examples import at
from neobert.data.grammar import document
from neobert.data.text.files import (
    EXPECTED,
    THREADS,
    Kind,
    after_failure,
    is_compressed,
    is_remote,
    kind_of,
    opened,
    patiently,
    size_and_version,
)

BYTES = 1 << 18
"""Size of a block of text or JSON lines. With it, and the next one, changes what is in which shard: `shards.SCHEMA`."""
ROWS = 256
"""Documents in a block of an arrow file, or of the built-in grammar."""
END = -1
GENERATED = "generated"
"""In place of a file's name, for documents of the built-in grammar."""
GENERATED_BYTES = 500
"""About so many has one of them."""
ARROW_FILE = b"ARROW1"
"""How a file of the arrow format of that name begins; the others are streams, as `datasets` writes them."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a file: bytes of text or JSON lines, row groups of parquet, rows of arrow; up to `stop` or `END`.

    Or documents of the built-in grammar, by their numbers.
    """

    path: str
    kind: Kind
    start: int
    stop: int
    size: int
    """About how many bytes of text it holds; for sharing out work."""


@dataclass(frozen=True)
class Reader:
    """How documents stand in files: the column that holds them (not for text), and whether a text file is just one."""

    column: str = "text"
    whole_files: bool = False

    def documents(self, block: Block) -> Iterator[str]:
        """The documents of a block, in order; blank lines are none. Remote files are tried again when a read fails.

        Raises `ConfigError` for what is not as it should be, with its place in the file, and `RunError` for a file
        that cannot be read.
        """
        given = failures = 0
        while True:
            try:
                for document in islice(self._read(block), given, None):
                    yield document
                    given, failures = given + 1, 0
                return
            except Exception as error:  # noqa: BLE001  # each file system has exceptions of its own
                failures += 1
                after_failure(block.path, failures, error)

    def _read(self, block: Block) -> Iterator[str]:
        if block.kind == "generated":
            return map(document, range(block.start, block.stop))
        if block.kind == "parquet":
            return self._parquet(block)
        if block.kind == "arrow":
            return self._arrow(block)
        if block.kind == "text" and self.whole_files:
            return self._whole(block)
        return (self._document(line, block, place) for line, place in _lines(block) if line.strip())

    def _whole(self, block: Block) -> Iterator[str]:
        with opened(block.path) as file:
            yield _decoded(file.read().removeprefix(codecs.BOM_UTF8), block.path, 0)

    def _document(self, line: bytes, block: Block, place: int) -> str:
        text = _decoded(line, block.path, place).rstrip("\r\n")
        return self._of_json(text, f"{block.path}, at byte {place}") if block.kind == "jsonl" else text

    def _of_json(self, line: str, where: str) -> str:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise at(where, f"expected an object of JSON in each line: {error}") from None
        if not isinstance(found, dict):
            raise at(where, f"expected an object of JSON in each line, found {line[:40]}")
        if self.column not in found:
            raise at(where, f"has no {self.column!r}; there are {', '.join(found)} (text_column names it)")
        text = _checked(found[self.column], where, self.column)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise at(where, rf"{self.column} holds half a character (\u{ord(text[error.start]):x})") from None
        return text

    def _parquet(self, block: Block) -> Iterator[str]:
        with opened(block.path) as raw, pyarrow.parquet.ParquetFile(raw) as file:
            self.check_column(file.schema_arrow.names, block.path)
            row = sum(file.metadata.row_group(group).num_rows for group in range(block.start))
            groups = list(range(block.start, block.stop))
            for batch in file.iter_batches(ROWS, row_groups=groups, columns=[self.column], use_threads=False):
                yield from self._rows(batch, block.path, row)
                row += len(batch)

    def _arrow(self, block: Block) -> Iterator[str]:
        with _arrow_batches(block.path) as batches:
            row = 0
            for batch in batches:
                self.check_column(batch.schema.names, block.path)
                first = max(block.start - row, 0)
                last = len(batch) if block.stop == END else min(block.stop - row, len(batch))
                if first < last:
                    yield from self._rows(batch[first:last], block.path, row + first)
                row += len(batch)
                if row >= block.stop != END:
                    return

    def _rows(self, batch: pyarrow.RecordBatch, path: str, row: int) -> Iterator[str]:
        column = batch.column(self.column)
        try:
            values = column.to_pylist()
        except UnicodeDecodeError:  # which of them it is, it does not tell
            values = map(_unless_not_utf8, column)
        for number, value in enumerate(values, row):
            where = f"{path}, row {number} (from 0)"
            if isinstance(value, UnicodeDecodeError):
                raise _not_utf8(where, value)
            yield _checked(value, where, self.column)

    def check_column(self, names: Sequence[str], path: str) -> None:
        if self.column not in names:
            raise at(path, f"has no column {self.column!r}; there are {', '.join(names)} (text_column names it)")


def generated(count: int) -> list[Block]:
    """The first `count` documents of the built-in grammar."""
    starts = range(0, count, ROWS)
    return [Block(GENERATED, "generated", start, min(start + ROWS, count), GENERATED_BYTES * ROWS) for start in starts]


def blocks(files: Sequence[str], reader: Reader) -> list[Block]:
    """All documents of these files. A compressed file is one block: there is no way into the middle of it.

    Raises `ConfigError` for names that do not tell the format, and for files that are not what their names say.
    """
    kinds = [_known_kind(path) for path in files]
    with ThreadPoolExecutor(THREADS) as threads:
        return list(chain.from_iterable(threads.map(partial(_blocks_patiently, reader), files, kinds)))


def _known_kind(path: str) -> Kind:
    kind = kind_of(path)
    if kind is None:
        raise ConfigError(f"{path}: the name does not tell what it is ({EXPECTED})")
    return kind


def _blocks_patiently(reader: Reader, path: str, kind: Kind) -> list[Block]:
    return patiently(path, partial(_blocks, path, kind, reader))


def _blocks(path: str, kind: Kind, reader: Reader) -> list[Block]:
    if kind == "parquet":
        return _row_groups(path, reader)
    size, _ = size_and_version(path)
    if kind == "arrow" and not is_remote(path):
        with _arrow_batches(path) as batches:
            rows = sum(map(len, batches))
        each = size // max(rows, 1)
        return [Block(path, kind, start, min(start + ROWS, rows), each * ROWS) for start in range(0, rows, ROWS)]
    # Of a remote arrow file, too, the middle may be reached only through all that comes before.
    if kind == "arrow" or is_compressed(path) or (kind == "text" and reader.whole_files):
        return [Block(path, kind, 0, END, size)]
    places = range(0, size, BYTES)
    return [Block(path, kind, start, min(start + BYTES, size), min(BYTES, size - start)) for start in places]


def _row_groups(path: str, reader: Reader) -> list[Block]:
    with opened(path) as raw, pyarrow.parquet.ParquetFile(raw) as file:
        reader.check_column(file.schema_arrow.names, path)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        sizes = [_size_in(group, reader.column) for group in groups]
    return [Block(path, "parquet", number, number + 1, size) for number, size in enumerate(sizes)]


def _size_in(group: pyarrow.parquet.RowGroupMetaData, name: str) -> int:
    columns = map(group.column, range(group.num_columns))
    return sum(
        column.total_uncompressed_size for column in columns if f"{column.path_in_schema}.".startswith(f"{name}.")
    )


def _lines(block: Block) -> Iterator[tuple[bytes, int]]:
    """The lines that begin in a block, each with its place in the file."""
    with opened(block.path, None if block.stop == END else BYTES) as file:
        place = block.start
        if place:
            file.seek(place - 1)
            # Past the end of the line before, but not past this block: that line may be longer than many of them.
            place += len(file.readline(block.stop - place + 1)) - 1
        while block.stop == END or place < block.stop:
            line = file.readline()
            if not line:
                return
            yield (line if place else line.removeprefix(codecs.BOM_UTF8)), place
            place += len(line)


@contextmanager
def _arrow_batches(path: str) -> Iterator[Iterator[pyarrow.RecordBatch]]:
    """The batches of an arrow file, of either of its two formats; of a local one, only what is used is read."""
    with opened(path) if is_remote(path) else pyarrow.memory_map(path) as file:
        is_file_format = file.read(len(ARROW_FILE)) == ARROW_FILE
        file.seek(0)
        if is_file_format:
            reader = pyarrow.ipc.open_file(file)
            yield map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield iter(pyarrow.ipc.open_stream(file))


def _checked(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else f"{type(value).__name__}"
        raise at(where, f"{column} is {found}, expected text")
    return value


def _decoded(data: bytes, path: str, place: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path}, at byte {place + error.start}", error) from None


def _unless_not_utf8(value: pyarrow.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error


def _not_utf8(where: str, error: UnicodeDecodeError) -> ConfigError:
    byte = error.object[error.start]
    return at(where, f"is not UTF-8: there stands 0x{byte:02x}. Convert the text (iconv does), or take it out")
