"""Pieces on disk: token ids end to end in files that are mapped into memory, and a manifest that says what they are.

    DIR/manifest.json          what they were made of, and the totals; there once all is
    DIR/tokenizer/             the tokenizer, so that nobody need look for it
    DIR/shards/train-00000.ids, train-00000.ends, validation-00000.ids, ...
    DIR/shards/00000.json      what is in shard 0; there once its files are

`.ids` holds the pieces' token ids without gaps (16 or 32 bits each, as the manifest says), `.ends` where in it each
piece ends (64 bits each).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neobert.config import ConfigError
from neobert.data.text.pieces import Ids, kind_of_ids
from neobert.training.files import write_json

SCHEMA = 1
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class ShardFiles:
    """The files of shard `number` in a directory of shards."""

    directory: Path
    number: int

    @property
    def summary(self) -> Path:
        return self.directory / "shards" / f"{self.number:05d}.json"

    def ids(self, split: str) -> Path:
        return self.directory / "shards" / f"{split}-{self.number:05d}.ids"

    def ends(self, split: str) -> Path:
        return self.directory / "shards" / f"{split}-{self.number:05d}.ends"


def write_split(files: ShardFiles, split: str, pieces: Iterable[Ids], vocabulary: int) -> tuple[int, int]:
    """Writes the pieces of a shard as they come; returns how many there are, and how many tokens."""
    count = tokens = 0
    ids_kind = kind_of_ids(vocabulary)
    with files.ids(split).open("wb") as ids, files.ends(split).open("wb") as ends:
        for piece in pieces:
            ids.write(piece.astype(ids_kind).tobytes())
            tokens += len(piece)
            count += 1
            ends.write(tokens.to_bytes(8, "little"))
    return count, tokens


class MappedShard:
    """One split of one shard, mapped into memory."""

    def __init__(self, files: ShardFiles, split: str, vocabulary: int):
        self._ids, self._ends = files.ids(split), files.ends(split)
        self._kind = kind_of_ids(vocabulary)
        self._count = self._ends.stat().st_size // 8

    def __len__(self) -> int:
        return self._count

    @cached_property
    def ends(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.memmap(self._ends, "<u8", "r") if self._count else np.zeros(0, np.uint64)

    @cached_property
    def ids(self) -> np.ndarray[Any, Any]:
        return np.memmap(self._ids, self._kind, "r") if self._count else np.zeros(0, self._kind)

    def piece(self, number: int) -> Ids:
        start = int(self.ends[number - 1]) if number else 0
        return self.ids[start : int(self.ends[number])].astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mappings: another process makes its own."""
        return {name: value for name, value in vars(self).items() if name not in ("ends", "ids")}


class Shards:
    """All pieces of one split of a directory that `neobert preprocess` has made, by number."""

    def __init__(self, directory: Path, split: str):
        self.directory = directory
        self.manifest = read_manifest(directory)
        numbers = range(self.manifest["shards"])
        vocabulary = self.manifest["tokenizer"]["vocabulary"]
        self._shards = [MappedShard(ShardFiles(directory, number), split, vocabulary) for number in numbers]
        self._firsts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> Ids:
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return self._shards[shard].piece(number - int(self._firsts[shard]))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises `ConfigError` when the directory holds no finished shards."""
    path = directory / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (directory / "shards").is_dir():
            message = "its shards are not merged yet: run `neobert preprocess` to the end (step: merge, for parts)"
        else:
            message = "no such directory" if not directory.is_dir() else "holds no shards of `neobert preprocess`"
        raise ConfigError(f"{directory}: {message}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if manifest.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: is of version {manifest.get('schema')}, and this program reads version {SCHEMA}")
    return manifest


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    write_json(directory / "manifest.json", {"schema": SCHEMA, **manifest}, durable=True)
