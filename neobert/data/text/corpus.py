"""The documents that settings name, before anything is done with them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import neobert
from neobert.config import ConfigError
from neobert.config.base import KeyPath
from neobert.config.text import TextFiles
from neobert.data.text.documents import GENERATED, Block, Reader, blocks, generated
from neobert.data.text.files import is_remote, patiently, size_and_version
from neobert.data.text.finding import find, find_on_hub

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    reader: Reader
    blocks: tuple[Block, ...]
    files: tuple[str, ...]

    @cached_property
    def _facts(self) -> list[tuple[int, str]]:
        return [patiently(path, partial(size_and_version, path)) for path in self.files]

    @property
    def identity(self) -> list[list[Any]]:
        """Name and size of each file, in order. Names of local files begin below what they have in common."""
        if not self.files:
            return [[GENERATED, self.blocks[-1].stop]]
        return [[name, size] for name, (size, _) in zip(_names(self.files), self._facts, strict=True)]

    @property
    def versions(self) -> Mapping[str, str]:
        """Of each file, by path: something that changes with it, such as its time."""
        if not self.files:
            return {GENERATED: neobert.__version__}
        return {path: version for path, (_, version) in zip(self.files, self._facts, strict=True)}

    def sample(self, size: int) -> Iterator[str]:
        """Documents of about `size` bytes together, evenly spread; of a smaller corpus, all."""
        total = sum(block.size for block in self.blocks)
        some = self.blocks[:: max(1, -(-total // size))]
        if len(some) < len(self.blocks):
            log.info("the tokenizer is learned from %d of %d blocks of text", len(some), len(self.blocks))
        for text in chain.from_iterable(map(self.reader.documents, some)):
            if size <= 0:  # compressed files hold more than their size tells
                return
            size -= len(text)
            yield text


def find_corpus(text: TextFiles, place: KeyPath) -> Corpus:
    """What the settings at `place` name; raises `ConfigError` where there is no text."""
    reader = Reader(text.text_column, text.whole_files)
    if text.generated is not None:
        return Corpus(reader, tuple(generated(text.generated)), ())
    try:
        if text.files is not None:
            files = find(text.files, text.text_column)
        else:
            files = find_on_hub(str(text.hub), text.hub_config, text.split, text.revision)
        found = blocks(files, reader)
    except ConfigError as error:
        key = "files" if text.files is not None else "hub"
        raise error.located(lambda path: "", lambda path: (*place, key)) from None
    if not any(block.size for block in found):
        raise ConfigError.at(place, f"holds no text: nothing is in {named(files)}. Name files with text in them")
    return Corpus(reader, tuple(found), tuple(files))


def named(files: Sequence[str]) -> str:
    """The first of them, for messages."""
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more files" if files[3:] else "")


def _names(files: Sequence[str]) -> list[str]:
    """Names that stay the same when the directory of all the local ones is moved, or named in another way."""
    folders = [os.path.abspath(Path(path).parent) for path in files if not is_remote(path)]  # noqa: PTH100  # links stay
    common = os.path.commonpath(folders) if folders else ""
    return [path if is_remote(path) else os.path.relpath(path, common) for path in files]
