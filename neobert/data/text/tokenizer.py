"""The tokenizer of a pretraining: found, or learned from the text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.config.text import TokenizerConfig
from neobert.data.tokenizing import train_wordpiece

ENDLESS = 10**9
"""As model_max_length: whoever uses the tokenizer says how long texts may be."""


def load_tokenizer(source: str, config: TokenizerConfig | None = None) -> PreTrainedTokenizerBase:
    """From a directory or the hub; raises `ConfigError` when there is none, or it has no mask or padding token."""
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code} if config else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # noqa: BLE001  # OSError, ValueError, KeyError, the hub's own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{source!r}: no tokenizer can be loaded from it: {first}"
        if not Path(source).exists():
            message += " (there is no such directory, and compute nodes often reach no hub)"
        raise ConfigError.at(("tokenizer", "name_or_path"), message) from None
    missing = [kind for kind in ("mask", "pad") if getattr(tokenizer, f"{kind}_token_id") is None]
    if missing:
        raise ConfigError.at(("tokenizer",), f"{source!r} has no {' and no '.join(missing)} token")
    if len(tokenizer) <= len(tokenizer.all_special_ids) + 1:
        raise ConfigError.at(("tokenizer",), f"{source!r} has no words; are its files complete (tokenizer.json)?")
    return tokenizer


def learn_tokenizer(documents: Iterable[str], vocab_size: int, directory: Path) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer of these documents, saved; the same documents give the same one."""
    tokenizer = train_wordpiece(((document,) for document in documents), vocab_size, ENDLESS)
    tokenizer.save_pretrained(directory)
    return tokenizer
