"""Making shards: what there is to do, each shard by itself, and the end, which everything must have reached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.config.text import PreprocessConfig
from neobert.data.order import key
from neobert.data.text.documents import Block, Reader, blocks, find, find_on_hub, size_of
from neobert.data.text.pieces import Cutter, Ids, fingerprint
from neobert.data.text.shards import SPLITS, ShardFiles, write_manifest, write_split
from neobert.errors import RunError
from neobert.training.files import read_json, sync_directory, write_json

log = logging.getLogger(__name__)

EDGE = 1 << 16
"""Bytes at the start and the end of a file that are looked at for its fingerprint."""


@dataclass(frozen=True)
class Work:
    """Everything that is to be made into shards: number i holds the documents of `shards[i]`."""

    output: Path
    reader: Reader
    tokenizer: PreTrainedTokenizerBase
    max_seq_length: int
    validation_fraction: float
    shards: tuple[tuple[Block, ...], ...]
    identity: dict[str, Any]

    def is_done(self, number: int) -> bool:
        return ShardFiles(self.output, number).summary.exists()


def read_source(config: PreprocessConfig) -> tuple[Reader, list[str], list[Block]]:
    """How to read the documents, their files, and the blocks in these; raises `ConfigError` where there is no text."""
    data = config.data
    reader = Reader(data.text_column, data.whole_files)
    try:
        files = (
            find(data.files) if data.files else find_on_hub(str(data.hub), data.hub_config, data.split, data.revision)
        )
        found = blocks(files, reader)
    except ConfigError as error:
        raise error.located(lambda path: "", lambda path: ("data", "files" if data.files else "hub")) from None
    if not any(block.size for block in found):
        raise ConfigError.at(("data",), f"holds no text: {len(files)} files, all of them empty")
    return reader, files, found


def plan(
    config: PreprocessConfig, reader: Reader, files: Sequence[str], found: Sequence[Block], tokenizer: Any
) -> Work:
    """What there is to do. Raises `ConfigError` when the directory holds shards that were made of other things."""
    identity = {
        "source": {path: _fingerprint_of(path) for path in files},
        "reading": config.data.model_dump(include={"text_column", "whole_files"}),
        "tokenizer": fingerprint(tokenizer),
        "max_seq_length": config.max_seq_length,
        "validation_fraction": config.validation_fraction,
        "shard_bytes": config.shard_bytes,
    }
    output = Path(config.output)
    (output / "shards").mkdir(parents=True, exist_ok=True)
    _check_identity(output, identity)
    grouped = tuple(_grouped(found, config.shard_bytes))
    return Work(output, reader, tokenizer, config.max_seq_length, config.validation_fraction, grouped, identity)


def make_shard(work: Work, number: int) -> None:
    """Writes one shard, unless it is there. Its summary comes last, so that an interrupted one is made anew."""
    files = ShardFiles(work.output, number)
    if files.summary.exists():
        return
    counts = {"documents": 0, "without_text": 0, "cut": 0}
    held_out: list[Ids] = []
    cutter = Cutter(work.tokenizer, work.max_seq_length)

    def documents() -> Iterator[str]:
        for block in work.shards[number]:
            yield from work.reader.documents(block)

    def training() -> Iterator[Ids]:
        for text, pieces in _with_texts(documents(), cutter):
            counts["documents"] += 1
            counts["without_text"] += not pieces
            counts["cut"] += len(pieces) > 1
            if _is_held_out(text, work.validation_fraction):
                held_out.extend(pieces)
            else:
                yield from pieces

    vocabulary = len(work.tokenizer)
    splits = {"train": write_split(files, "train", training(), vocabulary)}
    splits["validation"] = write_split(files, "validation", held_out, vocabulary)
    sync_directory(files.summary.parent)
    totals = {split: {"pieces": pieces, "tokens": tokens} for split, (pieces, tokens) in splits.items()}
    write_json(files.summary, counts | totals, durable=True)


def merge(work: Work) -> dict[str, Any]:
    """Writes the manifest over all shards; raises `RunError` while some are missing, or if they hold no text."""
    missing = [number for number in range(len(work.shards)) if not work.is_done(number)]
    if missing:
        some = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise RunError(f"{len(missing)} of {len(work.shards)} shards in {work.output} are not made yet: {some}")
    summaries = [read_json(ShardFiles(work.output, number).summary) for number in range(len(work.shards))]
    totals = {name: sum(summary[name] for summary in summaries) for name in ("documents", "without_text", "cut")}
    splits = {
        split: {name: sum(summary[split][name] for summary in summaries) for name in ("pieces", "tokens")}
        for split in SPLITS
    }
    if not splits["train"]["pieces"]:
        raise RunError(f"the source of {work.output} holds no text to train on, in {totals['documents']} documents")
    manifest = {
        "shards": len(work.shards),
        **totals,
        **splits,
        "max_seq_length": work.max_seq_length,
        "tokenizer": {"fingerprint": fingerprint(work.tokenizer), "vocabulary": len(work.tokenizer)},
        "identity": work.identity,
    }
    write_manifest(work.output, manifest)
    return manifest


def _with_texts(documents: Iterable[str], cutter: Cutter) -> Iterator[tuple[str, list[Ids]]]:
    texts: list[str] = []

    def noted() -> Iterator[str]:
        for text in documents:
            texts.append(text)
            yield text

    for pieces in cutter(noted()):
        yield texts.pop(0), pieces


def _is_held_out(text: str, fraction: float) -> bool:
    """By the text itself: the same text is never on both sides, wherever it stands."""
    if not fraction:
        return False
    return key(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())) / 2**64 < fraction


def _grouped(found: Iterable[Block], size: int) -> Iterator[tuple[Block, ...]]:
    group: list[Block] = []
    total = 0
    for block in found:
        if group and total + block.size > size:
            yield tuple(group)
            group, total = [], 0
        group.append(block)
        total += block.size
    if group:
        yield tuple(group)


def _fingerprint_of(path: str) -> str:
    """Of a file's size, and of what stands at its start and its end; of a remote file, of its size."""
    size = size_of(path)
    found = hashlib.sha256(str(size).encode())
    if "://" not in path:
        with Path(path).open("rb") as file:
            found.update(file.read(EDGE))
            file.seek(max(size - EDGE, 0))
            found.update(file.read())
    return found.hexdigest()[:16]


def _check_identity(output: Path, identity: dict[str, Any]) -> None:
    """The first one who comes writes down what the shards are made of, and all others must want the same."""
    path = output / "identity.json"
    if not path.exists():
        write_json(path, identity, durable=True)
        return
    before = read_json(path)
    changes = [name for name in identity if identity[name] != before.get(name)]
    if changes:
        told = "; ".join(_change(name, before.get(name), identity[name]) for name in changes)
        raise ConfigError.at(
            ("output",),
            f"{output} holds shards of something else: {told}. Choose another directory, or remove this one",
        )


def _change(name: str, before: Any, now: Any) -> str:
    if name != "source" or not isinstance(before, dict):
        return f"{name} {before} then, {now} now"
    gone, new = sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys())
    changed = sorted(path for path in before.keys() & now.keys() if before[path] != now[path])
    kinds = {"gone": gone, "new": new, "changed": changed}
    return "source files are " + ", ".join(f"{kind} ({paths[0]}{', ...' if paths[1:] else ''})"
                                           for kind, paths in kinds.items() if paths)  # fmt: skip
