"""Documents out of files, in blocks that can be read by themselves and in any order.

Files are text (a document a line, or a file), JSON lines, parquet and arrow, here or at any place that fsspec reaches
(`hf://`, `s3://`, `https://`); a data set on the hub is the list of its files.
"""

from __future__ import annotations

import glob
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neobert.config import ConfigError
from neobert.errors import RunError

log = logging.getLogger(__name__)

Kind = Literal["text", "jsonl", "parquet", "arrow"]
KINDS: dict[str, Kind] = {
    ".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
    ".arrow": "arrow",
}  # fmt: skip
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
BYTES = 1 << 18
"""Size of a block of text or JSON lines."""
ROWS = 256
"""Size of a block of an arrow file."""
TRIES = 6
FIRST_WAIT = 1.0
"""Seconds before a failed read of a remote file is tried again; twice as long each time."""


@dataclass(frozen=True)
class Block:
    """A part of a file: bytes of text or JSON lines, row groups of parquet, rows of arrow; -1 is the end."""

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
        """The documents of a block, in order. Remote files are tried again when a read fails.

        Raises `RunError` that names the file when it cannot be read, or is not what it should be.
        """
        if "://" not in block.path:
            with _named(block.path):
                yield from self._read(block)
            return
        given = 0
        for attempt in range(TRIES):
            try:
                for number, document in enumerate(self._read(block)):
                    if number >= given:
                        given += 1
                        yield document
                return
            except (RunError, ConfigError):
                raise
            except Exception as error:  # noqa: BLE001  # each file system has exceptions of its own
                wait = FIRST_WAIT * 2**attempt
                if attempt + 1 == TRIES:
                    message = f"{block.path} cannot be read, after {TRIES} tries: {_line(error)}"
                    raise RunError(message) from None
                log.warning("%s: %s; next try in %g s", block.path, _line(error), wait)
                time.sleep(wait)

    def _read(self, block: Block) -> Iterator[str]:
        if block.kind == "parquet":
            return self._parquet(block)
        if block.kind == "arrow":
            return self._arrow(block)
        return self._lines(block)

    def _lines(self, block: Block) -> Iterator[str]:
        with _open(block.path) as file:
            if block.kind == "text" and self.whole_files:
                yield _decoded(file.read(), block.path, 0)
                return
            place = block.start
            if place:  # a line belongs to the block in which it begins
                file.seek(place - 1)
                place += len(file.readline()) - 1
            while block.stop < 0 or place < block.stop:
                line = file.readline()
                if not line:
                    return
                text = _decoded(line, block.path, place).rstrip("\r\n")
                if text.strip():
                    yield self._of_json(text, block.path, place) if block.kind == "jsonl" else text
                place += len(line)

    def _of_json(self, line: str, path: str, place: int) -> str:
        try:
            found = json.loads(line)[self.column]
        except ValueError as error:
            raise RunError(f"{path}, at byte {place}: is no JSON ({error})") from None
        except (KeyError, TypeError):
            raise RunError(f"{path}, at byte {place}: has no {self.column!r}{_others(line)}") from None
        if not isinstance(found, str):
            raise RunError(f"{path}, at byte {place}: {self.column!r} is {type(found).__name__}, and no text")
        return found

    def _parquet(self, block: Block) -> Iterator[str]:
        import pyarrow.parquet

        with _open(block.path) as file:
            table = pyarrow.parquet.ParquetFile(file)
            self._check_column(table.schema_arrow.names, block.path)
            for group in range(block.start, block.stop):
                yield from _texts(table.read_row_group(group, columns=[self.column])[self.column], block.path)

    def _arrow(self, block: Block) -> Iterator[str]:
        from datasets import Dataset

        table = Dataset.from_file(block.path)
        self._check_column(table.column_names, block.path)
        for text in table[block.start : block.stop][self.column]:
            yield _text(text, block.path)

    def _check_column(self, names: Sequence[str], path: str) -> None:
        if self.column not in names:
            raise RunError(f"{path}: has no column {self.column!r}; there are {', '.join(names)}")


def find(patterns: Sequence[str]) -> list[str]:
    """The files that these names, directories and patterns (*, **) stand for, sorted; raises `ConfigError` if none."""
    found = []
    for pattern in patterns:
        if "://" in pattern:
            matches = _find_remote(pattern)
        elif Path(pattern).is_dir():
            matches = [str(path) for path in Path(pattern).rglob("*") if path.is_file() and kind_of(path.name)]
        else:
            matches = [path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]  # noqa: PTH207  # absolute ones too
        if not matches:
            raise ConfigError(f"{pattern}: there is no such file{_known_kinds(pattern)}")
        found += sorted(matches)
    return list(dict.fromkeys(found))


def find_on_hub(name: str, config: str | None, split: str, revision: str | None) -> list[str]:
    """The files of a data set on the hub; raises `ConfigError` when they cannot be had."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(name, config, revision=revision)
    except Exception as error:  # noqa: BLE001  # the hub's own, requests', httpx's, OSError, ValueError
        message = f"{name!r}: the hub did not give such a data set: {_line(error)}. Compute nodes often reach no hub"
        raise ConfigError(message) from None
    files = builder.config.data_files or {}
    if split not in files:
        raise ConfigError(f"{name!r} has no split {split!r}; there are {', '.join(files) or 'none'}")
    return list(files[split])


def kind_of(path: str) -> Kind | None:
    """What the name says of the format; None for names that say nothing."""
    name = Path(path).name
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return KINDS.get(Path(name).suffix)


def blocks(files: Sequence[str], reader: Reader) -> list[Block]:
    """All documents of these files. A compressed file is one block: there is no way into the middle of it."""
    found: list[Block] = []
    for path in files:
        kind = kind_of(path)
        if kind is None:
            raise ConfigError(f"{path}: the name does not tell what it is{_known_kinds(path)}")
        with _named(path):
            found += _blocks(path, kind, reader)
    return found


def _blocks(path: str, kind: Kind, reader: Reader) -> Iterator[Block]:
    if kind == "parquet":
        import pyarrow.parquet

        with _open(path) as file:
            table = pyarrow.parquet.ParquetFile(file).metadata
            for group in range(table.num_row_groups):
                yield Block(path, kind, group, group + 1, table.row_group(group).total_byte_size)
    elif kind == "arrow":
        from datasets import Dataset

        rows = len(Dataset.from_file(path))
        each = size_of(path) // max(rows, 1)
        for start in range(0, rows, ROWS):
            stop = min(start + ROWS, rows)
            yield Block(path, kind, start, stop, each * (stop - start))
    elif Path(path).suffix in COMPRESSED or (kind == "text" and reader.whole_files):
        yield Block(path, kind, 0, -1, size_of(path))
    else:
        size = size_of(path)
        for start in range(0, size, BYTES):
            stop = min(start + BYTES, size)
            yield Block(path, kind, start, stop, stop - start)


def size_of(path: str) -> int:
    """In bytes."""
    if "://" not in path:
        return Path(path).stat().st_size
    import fsspec

    file_system, name = fsspec.core.url_to_fs(path)
    return int(file_system.size(name))


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """The bytes of a file, decompressed."""
    compression = COMPRESSED.get(Path(path).suffix)
    if "://" not in path and compression is None:
        with Path(path).open("rb") as file:
            yield file
        return
    import fsspec

    with fsspec.open(path, "rb", compression=compression) as file:
        yield file


def _find_remote(pattern: str) -> list[str]:
    import fsspec

    try:
        file_system, name = fsspec.core.url_to_fs(pattern)
        scheme = pattern.partition("://")[0]
        names = file_system.glob(name) if glob.has_magic(name) else [name]
        names = [each for name in names for each in (file_system.find(name) if file_system.isdir(name) else [name])]
    except Exception as error:  # noqa: BLE001  # each file system has exceptions of its own
        raise ConfigError(f"{pattern}: {_line(error)}") from None
    return [f"{scheme}://{name.removeprefix(f'{scheme}://')}" for name in names if kind_of(name)]


def _texts(column: Any, path: str) -> Iterator[str]:
    for value in column:
        yield _text(value.as_py(), path)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RunError(f"{path}: a document is {type(value).__name__}, and no text")
    return value


def _decoded(data: bytes, path: str, place: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = data[error.start]
        raise RunError(f"{path}: is not UTF-8; at byte {place + error.start} stands 0x{bad:02x}") from None


def _others(line: str) -> str:
    found = json.loads(line)
    return f"; there are {', '.join(found)}" if isinstance(found, dict) else ""


def _known_kinds(path: str) -> str:
    return f" (expected {', '.join(KINDS)}, also compressed with {', '.join(COMPRESSED)})" if path else ""


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Lets an error of the system, or of a library, say which file it is about."""
    try:
        yield
    except (RunError, ConfigError):
        raise
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or _line(error)}") from None
    except ValueError as error:  # pyarrow's own
        raise RunError(f"{path}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
