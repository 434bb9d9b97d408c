"""The data of a pretraining, put together from its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError, PretrainConfig
from neobert.config.pretrain import DatasetConfig
from neobert.config.text import TrainingText
from neobert.data.order import key
from neobert.data.text.documents import Reader, blocks, find, find_on_hub
from neobert.data.text.masking import Masking, masking
from neobert.data.text.packing import Lengths, bucket, pack
from neobert.data.text.pieces import Cutter, fingerprint, lengths_of
from neobert.data.text.shards import Shards, read_manifest
from neobert.data.text.sources import MappedSource, Mixture, Piece, Source, StreamedSource
from neobert.data.text.stream import PaddedBatch, Row, Windows, make_row, packed_batch
from neobert.data.text.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

LANES = 8
"""For each process at the start of a training, so that it can go on with fewer of them, and with up to 8 times more."""

BLOCK = 256
"""About how many pieces a block holds; exactly, of shards."""


@dataclass(frozen=True)
class TrainingData:
    tokenizer: PreTrainedTokenizerBase
    windows: Windows
    held_out: list[Row]
    """Rows that are never trained on, masked once and for all."""
    tokens: int | None
    """In an epoch; None for streams."""
    collate: Callable[[list[Row]], dict[str, Any]]
    source: dict[str, Any]
    """What identifies the data: a resume with other data would mean something else."""


def load_data(config: PretrainConfig, lanes: int) -> TrainingData:
    """Raises `ConfigError` when text or tokenizer are missing, or do not go together."""
    dataset, collator = config.dataset, config.datacollator
    tokenizer = _tokenizer(config)
    cutter = Cutter(tokenizer, dataset.max_seq_length)
    sources = [_source(source, cutter, "train") for source in dataset.all_sources]
    if not any(source.blocks for source in sources):
        raise ConfigError.at(("dataset",), "holds no text")
    weights = [source.weight for source in dataset.all_sources if source.weight is not None]
    mixture = Mixture(sources, weights or None, config.seed)
    try:
        masks = masking(tokenizer, collator.mlm_probability, collator.mask_all, collator.whole_words)
    except ValueError as error:
        raise ConfigError.at(("datacollator",), str(error)) from None
    arrange = _arrangement(config)
    # Small windows where there is little text, so that all lanes are in the same epoch.
    size = max(1, min(dataset.shuffle_buffer_size // BLOCK, mixture.blocks // (4 * lanes)))
    windows = Windows(mixture, size, arrange, masks)
    pad = tokenizer.pad_token_id
    collate = packed_batch if collator.pack_sequences else PaddedBatch(int(pad), collator.pad_to_multiple_of)
    manifests = [read_manifest(Path(source.path)) for source in dataset.all_sources if source.path]
    return TrainingData(
        tokenizer=tokenizer,
        windows=windows,
        held_out=_held_out(dataset, cutter, arrange, masks, config.seed),
        tokens=sum(manifest["train"]["tokens"] for manifest in manifests) if manifests and not weights else None,
        collate=collate,
        source={"blocks": [source.blocks for source in sources], "tokenizer": fingerprint(tokenizer), "window": size},
    )


def _tokenizer(config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The one that is named, or that of the shards, which must be the same."""
    paths = [Path(source.path) for source in config.dataset.all_sources if source.path]
    if config.tokenizer is not None:
        tokenizer = load_tokenizer(str(config.tokenizer.name_or_path), config.tokenizer)
    else:
        _check_shards(paths[0])
        tokenizer = load_tokenizer(str(paths[0] / "tokenizer"))
    for path in paths:
        manifest = _check_shards(path)
        found, expected = fingerprint(tokenizer), manifest["tokenizer"]["fingerprint"]
        if found != expected:
            raise ConfigError.at(
                ("tokenizer",),
                f"{path} was tokenised with another tokenizer ({expected}, and this one is {found}): leave tokenizer "
                f"out, or take {path / 'tokenizer'}, or make the shards anew",
            )
        longest = manifest["max_seq_length"]
        if longest > config.dataset.max_seq_length:
            raise ConfigError.at(
                ("dataset", "max_seq_length"),
                f"is {config.dataset.max_seq_length}, but {path} holds pieces of up to {longest} tokens",
            )
    return tokenizer


def _check_shards(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path)
    except ConfigError as error:
        raise error.located(lambda place: "", lambda place: ("dataset", "path")) from None


def _source(config: TrainingText, cutter: Cutter, split: str) -> Source:
    if config.path is not None:
        return MappedSource(Shards(Path(config.path), split))
    reader = Reader(config.text_column, config.whole_files)
    if config.files is not None:
        files = find(config.files)
    else:
        files = find_on_hub(str(config.hub), config.hub_config, config.split, config.revision)
    return StreamedSource(blocks(files, reader), reader, cutter)


def _arrangement(config: PretrainConfig) -> Callable[[Lengths], list[list[int]]]:
    collator, length = config.datacollator, config.dataset.max_seq_length
    if collator.pack_sequences:
        return partial(pack, capacity=collator.max_tokens or length)
    if collator.max_tokens is not None:
        return partial(bucket, capacity=collator.max_tokens)
    return _one_each


def _one_each(lengths: Lengths) -> list[list[int]]:
    return [[piece] for piece in range(len(lengths))]


def _held_out(
    dataset: DatasetConfig, cutter: Cutter, arrange: Callable[[Lengths], list[list[int]]], masks: Masking, seed: int
) -> list[Row]:
    """The first pieces of an order that is the same in every training."""
    if dataset.validation is not None:
        source = _source(dataset.validation, cutter, "train")
    elif dataset.streaming or dataset.path is None:
        return []
    else:
        source = _source(dataset, cutter, "validation")
    every = (piece for place in range(source.blocks) for piece in source.read(0, 0, place))
    pieces = [Piece(piece.ids, key(0, piece.key)) for piece in islice(every, dataset.eval_samples)]
    packed = arrange(lengths_of([piece.ids for piece in pieces]))
    return [make_row([pieces[number] for number in row], masks) for row in packed]
