"""Data sets: prepared by the library `datasets`, or the files of one split, which are read as they are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets

from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.data.text.fetched import remember
from neobert.errors import RunError
from neobert.fetch.repository import Repository, Snapshot, alone, download, look_up

log = logging.getLogger(__name__)

CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files that tell the library which configurations and splits there are."""


def fetch_prepared(wanted: HubName, again: bool) -> tuple[Snapshot, Path]:
    """Downloads all splits of a configuration and prepares them, as `load_dataset` does.

    Returns the directory of what was prepared as well.
    """
    repository = look_up("dataset", wanted.name, wanted.revision)
    with alone(repository):
        cards = _fetch_cards(repository, again)
        builder, splits = _ask(wanted, repository)
        files = download(repository, [path for paths in splits.values() for path in paths], again)
        prepared = Path(builder.cache_dir)
        was_there = prepared.exists()
        _prepare(builder, anew=files.mended > 0)  # what was damaged may have been prepared as well
        try:
            builder.as_dataset()  # opens the tables: one that was cut short shows
        except Exception as error:  # pyarrow's, OSError, ValueError
            if not was_there:
                raise
            log.warning("%s: %s cannot be read (%s): it is prepared again", wanted.name, prepared, error)
            _prepare(builder, anew=True)
    return files.beside(cards), prepared


def fetch_text(wanted: HubName, again: bool) -> Snapshot:
    """Downloads the files of one split, and notes which they are: without the hub nobody could tell."""
    repository = look_up("dataset", wanted.name, wanted.revision)
    with alone(repository):
        cards = _fetch_cards(repository, again)
        _, splits = _ask(wanted, repository)
        split = str(wanted.split)
        if split not in splits:
            raise ConfigError(f"{wanted.name} has no split {split!r}; there are {', '.join(splits)}")
        files = download(repository, splits[split], again)
        remember(wanted.name, repository.commit, wanted.config, split, splits[split])
    return files.beside(cards)


def _fetch_cards(repository: Repository, again: bool) -> Snapshot:
    """First of all: by them the library understands the rest."""
    return download(repository, [path for path in CARDS if path in repository.files], again)


def _ask(wanted: HubName, repository: Repository) -> tuple[Any, dict[str, list[str]]]:
    """What prepares the data set, and the files of each of its splits."""
    options = {"revision": wanted.revision} if wanted.revision else {}
    builder = datasets.load_dataset_builder(wanted.name, wanted.config, **options)
    if not builder.config.data_files:  # the library asked its cache instead
        raise RunError(f"{wanted.name}: the hub did not tell which files it has; try again")
    if builder.hash != repository.commit:
        raise RunError(f"{wanted.name} was changed just now: run the same command again")
    beginning = f"hf://datasets/{wanted.name}@{repository.commit}/"
    # Files of other places, which a data set may name too, are none of the repository's.
    return builder, {
        str(split): [file.removeprefix(beginning) for file in files if file.startswith(beginning)]
        for split, files in builder.config.data_files.items()
    }


def _prepare(builder: Any, anew: bool) -> None:
    builder.download_and_prepare(download_mode="reuse_cache_if_exists" if anew else None)
