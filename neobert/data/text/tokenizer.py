"""The tokenizer of a pretraining: found, or learned from the text."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

import neobert.model  # noqa: F401  # without our kind of model, the library would warn of its configuration
from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.config.paths import why_missing
from neobert.config.text import TokenizerConfig
from neobert.data.text.files import first_line
from neobert.data.tokenizing import train_wordpiece
from neobert.data.vocabulary import missing_packages, warn_of_lost_entries
from neobert.errors import RunError
from neobert.hub import how_to_fetch
from neobert.training.files import sync_directory, write_json

ENDLESS = 10**9
"""As model_max_length: whoever uses the tokenizer says how long texts may be."""

LEARNED = "learned.json"
"""Beside a tokenizer that was learned: from what."""


def load_tokenizer(source: str, config: TokenizerConfig | None = None) -> PreTrainedTokenizerBase:
    """From a directory or the hub; raises `ConfigError` when there is none, or none that text can be masked with."""
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code} if config else {}
    missing = missing_packages(source)
    if missing:
        raise ConfigError.at(("tokenizer", "name_or_path"), missing)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # noqa: BLE001  # OSError, ValueError, KeyError, the hub's own
        message = f"{source!r}: no tokenizer can be loaded from it: {first_line(error)}"
        if not Path(source).exists():
            wanted = HubName("tokenizer", source, config.revision if config else None)
            nowhere = f"{message} (there is no such directory){why_missing(Path(source))}\n{how_to_fetch(wanted)}"
            message = missing_packages(source, str(error)) or nowhere
        raise ConfigError.at(("tokenizer", "name_or_path"), message) from None
    lacking = [kind for kind in ("mask", "pad") if getattr(tokenizer, f"{kind}_token_id") is None]
    if lacking:
        raise ConfigError.at(("tokenizer",), f"{source!r} has no {' and no '.join(lacking)} token")
    numbers = tokenizer.get_vocab().values()
    if len(numbers) <= len(tokenizer.all_special_ids) + 1:
        raise ConfigError.at(("tokenizer",), f"{source!r} has no words; are its files complete (tokenizer.json)?")
    if max(numbers) >= len(tokenizer):
        message = f"{source!r} numbers its {len(tokenizer)} tokens with gaps, up to {max(numbers)}: it cannot be used"
        raise ConfigError.at(("tokenizer",), message)
    warn_of_lost_entries(source, tokenizer)
    return tokenizer


def learn_tokenizer(documents: Iterable[str], vocab_size: int, directory: Path, what: Mapping[str, Any]) -> None:
    """A WordPiece tokenizer of these documents, saved with a note of `what` it was learned from.

    The same documents give the same one. Raises `ValueError` where there is not a word in them.
    """
    tokenizer = train_wordpiece(((document,) for document in documents), vocab_size, ENDLESS)
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise ValueError("no document has a word")
    save_tokenizer(tokenizer, directory, what)


def save_tokenizer(
    tokenizer: PreTrainedTokenizerBase, directory: Path, learned: Mapping[str, Any] | None = None
) -> None:
    """All of it or nothing; where another process has put the same one meanwhile, that one stays."""
    aside = directory.with_name(f".{directory.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        tokenizer.save_pretrained(aside)
        if learned is not None:
            write_json(aside / LEARNED, learned)
        for path in aside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if not directory.is_dir():
            aside.rename(directory)
            sync_directory(directory.parent)
    except Exception as error:  # noqa: BLE001  # the tokenizer's library tells of a full disk by an exception of no class
        raise RunError(f"the tokenizer cannot be written to {directory}: {first_line(error)}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
