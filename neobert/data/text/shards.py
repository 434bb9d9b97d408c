"""Pieces on disk: token ids end to end in files that are mapped into memory, and a manifest that says what they are.

    DIR/identity.json          what they are being made of; whoever wants something else is refused
    DIR/manifest.json          what they were made of, and the totals; there once all is
    DIR/tokenizer/             the tokenizer, so that nobody need look for it
    DIR/shards/train-00000.ids, train-00000.ends, train-00000.crc32, validation-00000.ids, ...
    DIR/shards/00000.json      what is in shard 0; there once its files are

`.ids` holds the pieces' token ids without gaps (16 or 32 bits each, as the manifest says), `.ends` where in it each
piece ends (64 bits each), `.crc32` the checksum of each piece (32 bits each). A piece is verified when it is read: of
500 tokens in 2 microseconds. To verify a whole corpus beforehand could take hours. Shards of older versions have no
checksums.
"""

from __future__ import annotations

import json
import os
import socket
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neobert.config import ConfigError
from neobert.config.paths import why_missing
from neobert.data.examples import at
from neobert.data.text.pieces import Ids, kind_of_ids
from neobert.errors import RunError
from neobert.training import lease
from neobert.training.files import sync_directory, write_json

SCHEMA = 1
SPLITS = ("train", "validation")
CHECKSUMS = "crc32"
"""The kind of checksum, in the summary of a shard, and in the manifest where all shards have one."""
_ANEW = "The same `neobert preprocess` as before makes its shard again"


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

    def checksums(self, split: str) -> Path:
        return self.directory / "shards" / f"{split}-{self.number:05d}.{CHECKSUMS}"


def write_shard(files: ShardFiles, pieces: Iterable[tuple[str, Ids]], vocabulary: int) -> dict[str, dict[str, int]]:
    """Writes pieces, each with its split, as they come; returns how many pieces and tokens each split has.

    The files have their names once they are complete and safe from a power cut. Raises `RunError` when they cannot be
    written, as on a full disk.
    """
    kind = kind_of_ids(vocabulary)
    totals = {split: {"pieces": 0, "tokens": 0} for split in SPLITS}
    paths = [path for split in SPLITS for path in (files.ids(split), files.ends(split), files.checksums(split))]
    asides = [path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}") for path in paths]
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(path.open("wb")) for path in asides]
            out = dict(zip(SPLITS, (opened[:3], opened[3:]), strict=True))
            for split, piece in pieces:
                ids, ends, checksums = out[split]
                data = piece.astype(kind).tobytes()
                totals[split]["pieces"] += 1
                totals[split]["tokens"] += len(piece)
                ids.write(data)
                ends.write(totals[split]["tokens"].to_bytes(8, "little"))
                checksums.write(zlib.crc32(data).to_bytes(4, "little"))
            for file in opened:
                file.flush()
                os.fsync(file.fileno())
        lease.check()
        for aside, path in zip(asides, paths, strict=True):
            aside.replace(path)
        sync_directory(files.summary.parent)
    except OSError as error:  # of what is read, other exceptions tell
        reason = error.strerror or str(error)
        raise RunError(f"shard {files.number} cannot be written to {files.summary.parent}: {reason}") from None
    finally:
        for aside in asides:
            aside.unlink(missing_ok=True)
    return totals


def find_fault(files: ShardFiles, totals: Mapping[str, Any], vocabulary: int) -> str | None:
    """What is wrong with the files of a shard that has so many pieces and tokens of each split, and with which."""
    width = np.dtype(kind_of_ids(vocabulary)).itemsize
    sizes = {files.ends(split): 8 * totals[split]["pieces"] for split in SPLITS}
    sizes |= {files.ids(split): width * totals[split]["tokens"] for split in SPLITS}
    if totals.get("checksums") == CHECKSUMS:
        sizes |= {files.checksums(split): 4 * totals[split]["pieces"] for split in SPLITS}
    faults = {path: _fault(path, expected) for path, expected in sizes.items()}
    return next((f"{path} {fault}" for path, fault in faults.items() if fault), None)


def _fault(path: Path, expected: int) -> str | None:
    """Only sizes are looked at: there may be thousands of files, on a slow file system."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if size == expected else f"is damaged: it has {size} bytes and not {expected}"


class MappedShard:
    """One split of one shard, mapped into memory: so many pieces, and tokens in all of them; perhaps with checksums."""

    def __init__(self, files: ShardFiles, split: str, vocabulary: int, pieces: int, tokens: int, verified: bool):
        self._ids, self._ends, self._checksums = files.ids(split), files.ends(split), files.checksums(split)
        self._summary = files.summary
        self._kind = kind_of_ids(vocabulary)
        self._count, self._verified = pieces, verified
        self._check(self._ends, 8 * pieces)
        self._check(self._ids, np.dtype(self._kind).itemsize * tokens)
        if verified:
            self._check(self._checksums, 4 * pieces)

    @staticmethod
    def _check(path: Path, expected: int) -> None:
        fault = _fault(path, expected)
        if fault is not None:
            raise at(str(path), f"{fault}. {_ANEW}")

    def __len__(self) -> int:
        return self._count

    @cached_property
    def ends(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.memmap(self._ends, "<u8", "r") if self._count else np.zeros(0, np.uint64)

    @cached_property
    def ids(self) -> np.ndarray[Any, Any]:
        return np.memmap(self._ids, self._kind, "r") if self._count else np.zeros(0, self._kind)

    @cached_property
    def checksums(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return np.memmap(self._checksums, "<u4", "r") if self._count else np.zeros(0, np.uint32)

    def piece(self, number: int) -> Ids:
        """Raises `ConfigError` for one that is damaged."""
        start = int(self.ends[number - 1]) if number else 0
        ids = self.ids[start : int(self.ends[number])]
        if self._verified and zlib.crc32(ids.data) != self.checksums[number]:
            raise at(
                str(self._ids), f"its piece {number} is not what was written, by its checksum (or {self._ends.name} is "
                f"damaged). Remove {self._summary}. {_ANEW}"
            )  # fmt: skip
        return ids.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mappings: another process makes its own."""
        return {name: value for name, value in vars(self).items() if name not in ("ends", "ids", "checksums")}


class Shards:
    """All pieces of one split of a directory that `neobert preprocess` has made, by number."""

    def __init__(self, directory: Path, split: str):
        self.manifest = read_manifest(directory)
        vocabulary, verified = self.manifest["tokenizer"]["vocabulary"], self.manifest.get("checksums") == CHECKSUMS
        self._shards = [
            MappedShard(ShardFiles(directory, number), split, vocabulary, pieces, tokens, verified)
            for number, (pieces, tokens) in enumerate(self.manifest["sizes"][split])
        ]
        self._firsts = np.cumsum([0, *map(len, self._shards)])
        self.tokens = sum(tokens for _, tokens in self.manifest["sizes"][split])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> Ids:
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return self._shards[shard].piece(number - int(self._firsts[shard]))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises `ConfigError` when the directory holds no finished shards."""
    path = directory / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (directory / "shards").is_dir():
            message = "its shards are not merged yet: run `neobert preprocess` to the end (step: merge, for parts)"
        else:
            message = "holds no shards of `neobert preprocess`"
            if not directory.is_dir():
                message = f"no such directory{why_missing(directory)}"
        raise ConfigError(f"{directory}: {message}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise ConfigError(f"{path}: is damaged: expected a mapping")
    if manifest.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: is of version {manifest.get('schema')}, and this program reads version {SCHEMA}")
    return manifest


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    write_json(directory / "manifest.json", {"schema": SCHEMA, **manifest}, durable=True)
