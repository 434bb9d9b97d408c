"""The data of a pretraining, put together from its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from neobert.config import ConfigError, PretrainConfig, Problem
from neobert.config.base import KeyPath, dotted
from neobert.config.pretrain import DatasetConfig
from neobert.config.text import TrainingText
from neobert.data.text.corpus import find_corpus
from neobert.data.text.masking import Masking, masking
from neobert.data.text.packing import Lengths, bucket, pack
from neobert.data.text.pieces import Cutter, fingerprint, lengths_of
from neobert.data.text.shards import Shards, read_manifest
from neobert.data.text.sources import TOGETHER, WINDOWS, MappedSource, Mixture, Source, StreamedSource
from neobert.data.text.stream import PaddedBatch, Row, Windows, make_row, packed_batch
from neobert.data.text.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

LANES = 8
"""For each process at the start of a training, so that it can go on with fewer of them, and with up to 8 times more."""


@dataclass(frozen=True)
class TrainingData:
    tokenizer: PreTrainedTokenizerBase
    windows: Callable[[int], Windows]
    """For so many lanes; small ones where there is little text, so that all lanes are in the same epoch."""
    held_out: list[Row]
    """Rows that are never trained on, masked once and for all."""
    tokens: int | None
    """In an epoch; None for streams."""
    collate: Callable[[list[Row]], dict[str, Any]]
    source: dict[str, Any]
    """What rows are made of: with anything else, a place in the data would mean something else."""
    versions: dict[str, str]
    """Of each text, by its place in the settings: changes with the times of files, and perhaps with nothing else."""


def load_data(config: PretrainConfig) -> TrainingData:
    """Raises `ConfigError` when text or tokenizer are missing, or do not go together."""
    dataset, collator = config.dataset, config.datacollator
    tokenizer = _tokenizer(config)
    cutter = Cutter(tokenizer, dataset.max_seq_length)
    texts = _texts(dataset)
    sources = [_source(text, place, cutter) for place, text in texts.items()]
    for place, source in zip(texts, sources, strict=True):
        if not source.blocks:
            raise ConfigError.at(place, "holds no text")
    weights = [text.weight for text in texts.values() if text.weight is not None]
    try:
        Mixture(sources, weights or None, config.seed)
    except ValueError as error:
        raise ConfigError.at(("dataset", "sources"), str(error)) from None
    try:
        masks = masking(tokenizer, collator.mlm_probability, collator.mask_all, collator.whole_words)
    except ValueError as error:
        raise ConfigError.at(("datacollator",), str(error)) from None
    arrange = _arrangement(config)

    def windows(lanes: int) -> Windows:
        mixture = Mixture([source.for_lanes(lanes) for source in sources], weights or None, config.seed)
        blocks = max(1, min(dataset.shuffle_buffer_size // TOGETHER, mixture.blocks // (WINDOWS * lanes)))
        return Windows(mixture, lanes, blocks, max(dataset.shuffle_buffer_size, TOGETHER), arrange, masks)

    pad = tokenizer.pad_token_id
    return TrainingData(
        tokenizer=tokenizer,
        windows=windows,
        held_out=_held_out(dataset, cutter, arrange, masks),
        tokens=None if dataset.streaming or weights else int(sum(source.amount for source in sources)),
        collate=packed_batch if collator.pack_sequences else PaddedBatch(int(pad), collator.pad_to_multiple_of),
        source={
            "text": [source.identity for source in sources],
            "tokenizer": fingerprint(tokenizer),
            "dataset.shuffle_buffer_size": dataset.shuffle_buffer_size,
            "dataset.max_seq_length": dataset.max_seq_length,
            "weights of dataset.sources": weights,
            "datacollator": collator.model_dump(mode="json"),
            "seed": config.seed,
        },
        versions={dotted(place): source.version for place, source in zip(texts, sources, strict=True)},
    )


def no_text(dataset: DatasetConfig) -> ConfigError:
    """What is told of data that was read to its end without a single token."""
    problems = []
    for place, text in _texts(dataset).items():
        key = next(name for name in ("path", "files", "hub", "generated") if getattr(text, name) is not None)
        message = f"holds no text: all of {getattr(text, key)} was read, and no document in it has a token to train on"
        problems.append(Problem((*place, key), message))
    return ConfigError(problems)


def _texts(dataset: DatasetConfig) -> dict[KeyPath, TrainingText]:
    """Every source to train on, by its place in the settings."""
    if dataset.sources is None:
        return {("dataset",): dataset}
    return {("dataset", "sources", number): text for number, text in enumerate(dataset.sources)}


def _tokenizer(config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The one that is named, or that of the shards; all shards must have been made with it."""
    texts = _texts(config.dataset)
    if config.dataset.validation is not None:
        texts[("dataset", "validation")] = config.dataset.validation
    paths = {(*place, "path"): Path(text.path) for place, text in texts.items() if text.path is not None}
    manifests = {place: _manifest(path, place) for place, path in paths.items()}
    if config.tokenizer is not None:
        tokenizer = load_tokenizer(str(config.tokenizer.name_or_path), config.tokenizer)
    else:
        tokenizer = load_tokenizer(str(next(iter(paths.values())) / "tokenizer"))
    longest = config.dataset.max_seq_length
    ours = fingerprint(tokenizer)
    for place, manifest in manifests.items():
        path, theirs = paths[place], manifest["tokenizer"]["fingerprint"]
        if theirs != ours:
            raise ConfigError.at(
                place, f"{path} was tokenised with another tokenizer ({theirs}) than {tokenizer.name_or_path} "
                f"({ours}), which is to be trained with. Take {path / 'tokenizer'}, or make these shards anew"
            )  # fmt: skip
        if manifest["max_seq_length"] > longest:
            raise ConfigError.at(
                ("dataset", "max_seq_length"),
                f"is {longest}, but {path} holds pieces of up to {manifest['max_seq_length']} tokens",
            )
    return tokenizer


def _manifest(path: Path, place: KeyPath) -> dict[str, Any]:
    with _located(place):
        return read_manifest(path)


def _source(text: TrainingText, place: KeyPath, cutter: Cutter, split: str = "train") -> Source:
    """`split` is of shards."""
    if text.path is not None:
        with _located((*place, "path")):
            return MappedSource(Shards(Path(text.path), split))
    corpus = find_corpus(text, place)
    return StreamedSource(corpus, cutter)


@contextmanager
def _located(place: KeyPath) -> Iterator[None]:
    """Lets a mistake in what a setting names say which setting that is."""
    try:
        yield
    except ConfigError as error:
        raise error.located(lambda path: "", lambda path: place) from None


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
    dataset: DatasetConfig, cutter: Cutter, arrange: Callable[[Lengths], list[list[int]]], masks: Masking
) -> list[Row]:
    """The first pieces of an order that is the same in every training."""
    if dataset.validation is not None:
        place = ("dataset", "validation")
        sources = [_source(dataset.validation, place, cutter)]
        if not sources[0].blocks:
            raise ConfigError.at(place, "holds no text")
    else:
        # What shards hold out. Of streams nothing is: their text would have to be read to the end to know what.
        shards = {place: text for place, text in _texts(dataset).items() if text.path is not None}
        sources = [_source(text, place, cutter, "validation") for place, text in shards.items()]
    mixture = Mixture(sources, None, seed=0)
    every = (piece for place in range(mixture.blocks) for piece in mixture.read(place))
    pieces = list(islice(every, dataset.eval_samples))
    packed = arrange(lengths_of([piece.ids for piece in pieces]))
    return [make_row([pieces[number] for number in row], masks) for row in packed]
