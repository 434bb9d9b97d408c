"""Making shards: what there is to do, each shard by itself, and the end, which everything must have reached."""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.config.text import PreprocessConfig
from neobert.data.text.corpus import Corpus, named
from neobert.data.text.documents import Block, Reader
from neobert.data.text.pieces import Cutter, Ids, fingerprint
from neobert.data.text.shards import CHECKSUMS, SCHEMA, SPLITS, ShardFiles, find_fault, write_manifest, write_shard
from neobert.data.text.tokenizer import LEARNED, learn_tokenizer, load_tokenizer, save_tokenizer
from neobert.errors import RunError
from neobert.training.files import read_json, to_json, write_json

log = logging.getLogger(__name__)

LEARN_FROM = 100_000_000
"""A tokenizer is learned from at most so many bytes of text, evenly spread over all of it: more changes nothing."""


@dataclass(frozen=True)
class Work:
    """Everything that is to be made into shards: number i holds the documents of `shards[i]`."""

    output: Path
    source: Corpus
    cutter: Cutter
    validation_fraction: float
    shards: tuple[tuple[Block, ...], ...]
    identity: dict[str, Any]

    @cached_property
    def identity_key(self) -> str:
        return hashlib.sha256(to_json(self.identity).encode()).hexdigest()[:16]

    def documents(self, number: int) -> Iterator[str]:
        return chain.from_iterable(map(self.source.reader.documents, self.shards[number]))

    def versions_key(self, number: int) -> str:
        """Changes with every file that the shard takes text from."""
        paths = dict.fromkeys(block.path for block in self.shards[number])
        return hashlib.sha256(repr([self.source.versions[path] for path in paths]).encode()).hexdigest()[:16]


def find_tokenizer(config: PreprocessConfig, source: Corpus) -> PreTrainedTokenizerBase:
    """The one that is named, or that was learned for these shards, or a new one, where that is this trial's work."""
    section = config.tokenizer
    if section.name_or_path is not None:
        return load_tokenizer(section.name_or_path, section)
    own = Path(config.output) / "tokenizer"
    what = {"train_vocab_size": section.train_vocab_size, "source": source.identity, **_reading(source.reader)}
    if not own.is_dir():
        if config.step not in ("all", "tokenizer"):
            message = f"there is no {own} yet: learn it before the parts start, with step: tokenizer"
            raise ConfigError.at(("tokenizer", "train_vocab_size"), message)
        _make_directory(own.parent)
        try:
            learn_tokenizer(source.sample(LEARN_FROM), int(section.train_vocab_size or 0), own, what)
        except ValueError as error:
            message = f"holds no text to learn a tokenizer from: {error} in {named(source.files)}"
            raise ConfigError.at(("data",), message) from None
    if not (own / LEARNED).exists():
        raise ConfigError.at(("output",), f"{own} is a tokenizer that was not learned for these shards{_ELSEWHERE}")
    _check_same(read_json(own / LEARNED), what, f"{own} was learned from something else")
    return load_tokenizer(str(own))


def plan(config: PreprocessConfig, source: Corpus, tokenizer: PreTrainedTokenizerBase) -> Work:
    """What there is to do. Raises `ConfigError` when the directory holds shards that were made of other things."""
    identity = {
        "schema": SCHEMA,
        "source": source.identity,
        **_reading(source.reader),
        "tokenizer": fingerprint(tokenizer),
        "max_seq_length": config.max_seq_length,
        "validation_fraction": config.validation_fraction,
        "shard_bytes": config.shard_bytes,
    }
    output = Path(config.output)
    _make_directory(output / "shards")
    known = output / "identity.json"
    if not known.exists():
        write_json(known, identity, durable=True)
    _check_same(read_json(known), identity, f"{output} holds shards of something else")
    grouped = tuple(_grouped(source.blocks, config.shard_bytes))
    return Work(output, source, Cutter(tokenizer, config.max_seq_length), config.validation_fraction, grouped, identity)


def is_done(work: Work, number: int) -> bool:
    """Whether a shard is there; raises `ConfigError` when it is there, but of other settings or other text.

    Where a file has another time than before, its text is read again, and compared. A shard that has lost a file, or a
    part of one, is not there.
    """
    path = ShardFiles(work.output, number).summary
    if not path.exists():
        return False
    summary = read_json(path)
    if summary.get("identity") != work.identity_key:
        raise ConfigError.at(("output",), f"{path} is a shard of other settings{_ELSEWHERE}")
    versions = work.versions_key(number)
    if summary.get("versions") != versions:
        log.info("the files of shard %d may have changed: reading them again", number)
        digest = hashlib.blake2b(digest_size=16)
        for text in work.documents(number):
            digest.update(_mark(text))
        if summary["digest"] != digest.hexdigest():
            some = sorted({block.path for block in work.shards[number]})
            files = some[0] if len(some) == 1 else f"{some[0]} to {some[-1]}"
            message = f"{path} is a shard of other text than now is in {files}{_ELSEWHERE}"
            raise ConfigError.at(("output",), message)
        write_json(path, summary | {"versions": versions}, durable=True)
    fault = find_fault(ShardFiles(work.output, number), summary, len(work.cutter.tokenizer))
    if fault is not None:
        log.warning("shard %d is made again: %s", number, fault)
    return fault is None


def make_shard(work: Work, number: int) -> int:
    """Writes one shard; returns how many tokens it has. Its summary comes last: without it, it is made anew."""
    files = ShardFiles(work.output, number)
    counts = {"documents": 0, "without_text": 0, "cut": 0}
    digest = hashlib.blake2b(digest_size=16)

    def pieces() -> Iterator[tuple[str, Ids]]:
        for text, pieces in work.cutter.with_texts(work.documents(number)):
            mark = _mark(text)
            digest.update(mark)
            counts["documents"] += 1
            counts["without_text"] += not pieces
            counts["cut"] += len(pieces) > 1
            split = "validation" if _is_held_out(mark, work.validation_fraction) else "train"
            for piece in pieces:
                yield split, piece

    totals = write_shard(files, pieces(), len(work.cutter.tokenizer))
    made_of = {
        "identity": work.identity_key, "versions": work.versions_key(number), "digest": digest.hexdigest(),
        "checksums": CHECKSUMS,
    }  # fmt: skip
    write_json(files.summary, made_of | counts | totals, durable=True)
    return sum(split["tokens"] for split in totals.values())


def merge(work: Work) -> dict[str, Any]:
    """Writes the manifest over all shards, and puts the tokenizer beside it.

    Raises `RunError` while shards are missing, and `ConfigError` if they hold no text, or beside another tokenizer.
    """
    missing = [number for number in range(len(work.shards)) if not is_done(work, number)]
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
        held_out = (
            f", {splits['validation']['pieces']} pieces of which are held out" if splits["validation"]["pieces"] else ""
        )
        raise ConfigError.at(("data",), f"holds no text to train on, in {totals['documents']} documents{held_out}")
    manifest = {
        "shards": len(work.shards),
        **totals,
        **splits,
        "sizes": {
            split: [[summary[split]["pieces"], summary[split]["tokens"]] for summary in summaries] for split in SPLITS
        },
        "max_seq_length": work.cutter.max_length,
        "tokenizer": {"fingerprint": work.identity["tokenizer"], "vocabulary": len(work.cutter.tokenizer)},
        "digest": hashlib.sha256("".join(summary["digest"] for summary in summaries).encode()).hexdigest(),
        "identity": work.identity,
    }
    if all(summary.get("checksums") == CHECKSUMS for summary in summaries):
        manifest["checksums"] = CHECKSUMS
    _put_tokenizer(work)
    for leftover in (work.output / "shards").glob(".*"):  # of attempts that were killed: nobody writes here any more
        leftover.unlink(missing_ok=True)
    write_manifest(work.output, manifest)
    return manifest


_ELSEWHERE = ". Choose another directory, or remove this one to make its shards anew"


def _put_tokenizer(work: Work) -> None:
    own = work.output / "tokenizer"
    if not own.is_dir():
        save_tokenizer(work.cutter.tokenizer, own)
    found = fingerprint(load_tokenizer(str(own)))
    if found != work.identity["tokenizer"]:
        message = f"{own} is another tokenizer ({found}) than the shards were made with ({work.identity['tokenizer']})"
        raise ConfigError.at(("output",), message + _ELSEWHERE)


def _mark(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _is_held_out(mark: bytes, fraction: float) -> bool:
    """By the text itself: the same text is never on both sides, wherever it stands."""
    return int.from_bytes(mark[:8], "little") / 2**64 < fraction


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


def _reading(reader: Reader) -> dict[str, Any]:
    return {"text_column": reader.column, "whole_files": reader.whole_files}


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise  # a full disk, a lost file server
        raise ConfigError.at(("output",), f"{path} cannot be made: {error.strerror}") from None


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], trouble: str) -> None:
    """The first one who came has written down what it is made of, and all others must want the same."""
    changes = [_change(name, before.get(name), now[name]) for name in now if now[name] != before.get(name)]
    if changes:
        raise ConfigError.at(("output",), f"{trouble}: {'; '.join(changes)}{_ELSEWHERE}")


def _change(name: str, before: Any, now: Any) -> str:
    if name != "source" or not isinstance(before, list):
        return f"{name} {before} then, {now} now"
    then, new = (dict(files) for files in (before, now))
    kinds = {
        "gone": sorted(then.keys() - new.keys()),
        "new": sorted(new.keys() - then.keys()),
        "changed": sorted(file for file in then.keys() & new.keys() if then[file] != new[file]),
    }
    told = [f"{kind}: {files[0]}{', ...' if files[1:] else ''}" for kind, files in kinds.items() if files]
    return f"files of the source are {', '.join(told)}" if told else "the files of the source had another order"
