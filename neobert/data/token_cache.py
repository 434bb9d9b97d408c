"""Tokenised examples, kept on this machine under the hash of what they were made from.

A sweep's trials on one task share them, whichever of them comes first: the others wait for it instead of tokenising the
same texts beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import socket
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from neobert.data.examples import Examples
from neobert.data.text.pieces import fingerprint
from neobert.data.tokenizing import Tokenized, tokenize

log = logging.getLogger(__name__)

SCHEMA = 1
"""Goes up when other code would make other tokens of the same."""
UNUSED_DAYS = 30
"""After which they are removed."""


def tokenized(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Sequence[str]
) -> Tokenized:
    """`tokenize` of the same, from the cache if it is there."""
    place = _directory()
    if place is None:
        return tokenize(examples, tokenizer, max_length, columns)
    path = place / f"{_key(examples, tokenizer, max_length, columns)}.npz"
    found = _read(path, examples)
    if found is not None:
        return found
    with _alone(path):
        found = _read(path, examples)  # another has made them meanwhile
        if found is None:
            found = tokenize(examples, tokenizer, max_length, columns)
            _write(path, found)
    return found


def _directory() -> Path | None:
    """NEOBERT_CACHE, or a directory in the user's own cache; None where nothing can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("NEOBERT_CACHE") or Path(home) / "neobert") / "tokens"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.info("tokens are not kept: %s cannot be written to (%s); NEOBERT_CACHE names another place", path,
                 error.strerror)  # fmt: skip
        return None
    _remove_unused(path)
    return path if os.access(path, os.W_OK) else None


def _remove_unused(directory: Path) -> None:
    for path in directory.glob("*.npz"):
        try:
            if time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # another process has removed it


def _key(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Sequence[str]) -> str:
    sides = (tokenizer.truncation_side, tokenizer.padding_side)
    facts = [SCHEMA, fingerprint(tokenizer), *sides, max_length, sorted(columns)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for texts in examples.texts:
        digest.update(repr(texts).encode())
    return digest.hexdigest()[:32]


def _read(path: Path, examples: Examples) -> Tokenized | None:
    try:
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files}
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:  # of a file that was cut short
        log.warning("%s is damaged and made anew: %s", path, error)
        return None
    return Tokenized(arrays, arrays.pop("lengths"), examples.labels)


def _write(path: Path, found: Tokenized) -> None:
    aside = path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}.npz")
    try:
        np.savez(aside, lengths=found.lengths, **found.columns)  # type: ignore[arg-type]
        aside.replace(path)
    except OSError as error:
        log.warning("tokens are not kept: %s: %s", path, error.strerror)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
