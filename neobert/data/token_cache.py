"""Tokenised examples, kept on this machine under the hash of what they were made from.

A sweep's trials on one task share them, whichever of them comes first: the others wait for it instead of tokenising the
same texts beside it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from neobert.config import private
from neobert.config.paths import at_home
from neobert.data.examples import Examples
from neobert.data.text.pieces import fingerprint
from neobert.data.tokenizing import Tokenized, tokenize

log = logging.getLogger(__name__)

SCHEMA = 2
"""Goes up when other code would make other tokens of the same."""
UNUSED_DAYS = 30
"""After which they are removed."""
PATIENCE_SECONDS = 300.0
"""After which nobody waits any longer for another process to make them."""


def tokenized(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Sequence[str]
) -> Tokenized:
    """`tokenize` of the same, from the cache if it is there."""
    place = _directory()
    if place is None:
        return tokenize(examples, tokenizer, max_length, columns)
    path = place / f"{_key(examples, tokenizer, max_length, columns)}.npz"
    found = _read(path, examples, columns)
    if found is not None:
        return found
    with _alone(path):
        found = _read(path, examples, columns)  # another has made them meanwhile
        if found is None:
            found = tokenize(examples, tokenizer, max_length, columns)
            _write(path, found)
    return found


def _directory() -> Path | None:
    """Return this user's directory in NEOBERT_CACHE, or in their own cache; None where nothing can be written.

    What another user can write decides no score, so nothing is shared between users, even in a NEOBERT_CACHE of many.
    """
    shared = os.environ.get("NEOBERT_CACHE")
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = at_home(shared) / f"tokens-{os.geteuid()}" if shared else Path(own) / "neobert/tokens"
    try:
        private.make_directory(path)
    except OSError as error:
        log.warning("tokens are not kept: %s: %s; NEOBERT_CACHE names another place", path, error.strerror)
        return None
    _remove_unused(path)
    return path if os.access(path, os.W_OK) else None


def _remove_unused(directory: Path) -> None:
    for path in directory.glob("*.npz"):
        try:
            if time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)
        except OSError:
            continue  # another process has removed it, or it is another user's


def _key(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Sequence[str]) -> str:
    sides = (tokenizer.truncation_side, tokenizer.padding_side)
    facts = [SCHEMA, fingerprint(tokenizer), *sides, max_length, sorted(columns)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for texts in examples.texts:
        digest.update(repr(texts).encode())
    return digest.hexdigest()[:32]


def _read(path: Path, examples: Examples, columns: Sequence[str]) -> Tokenized | None:
    try:
        with private.reading(path) as file:
            arrays = _arrays(file, path.stem, examples, columns)
            os.utime(file.fileno())
    except FileNotFoundError:
        return None
    except private.NotPrivate as error:
        log.warning("%s is made anew: it %s", path, error.strerror)
        return None
    except Exception as error:  # noqa: BLE001  # of a file that was cut short: OSError, ValueError, zipfile's, zlib's
        log.warning("%s is damaged and made anew: %s", path, error)
        return None
    return Tokenized(arrays, arrays.pop("lengths"), examples.labels)


def _arrays(file: IO[bytes], key: str, examples: Examples, columns: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """What `_write` has written of these examples; raises all sorts of errors for anything else."""
    kept = np.load(file)
    if not isinstance(kept, np.lib.npyio.NpzFile):
        raise ValueError("it is a single array")
    arrays = {name: kept[name] for name in kept.files}
    if arrays.pop("key", np.empty(0)).tobytes().hex() != key:
        raise ValueError("it is of other texts")
    wanted = {"lengths", *columns} - {"attention_mask"}
    if arrays.keys() != wanted:
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(wanted))}")
    if any(array.ndim != 1 or array.dtype.kind != "i" for array in arrays.values()):
        raise ValueError("it holds other arrays than rows of whole numbers")
    lengths = arrays["lengths"]
    if len(lengths) != len(examples):
        raise ValueError(f"it is of {len(lengths)} examples, expected {len(examples)}")
    if (lengths < 0).any() or any(len(arrays[name]) != lengths.sum() for name in wanted - {"lengths"}):
        raise ValueError("its columns are not as long as its examples together")
    return arrays


def _write(path: Path, found: Tokenized) -> None:
    aside = path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}.npz")
    key = np.frombuffer(bytes.fromhex(path.stem), np.uint8)
    try:
        with private.create(aside, 0o600) as file:
            np.savez(file, key=key, lengths=found.lengths, **found.columns)  # type: ignore[arg-type]
        aside.replace(path)
    except OSError as error:
        log.warning("tokens are not kept: %s: %s", path, error.strerror)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process makes them. Where that cannot be told, as without flock, each makes them for itself."""
    with ExitStack() as stack:
        try:
            _wait_for(stack.enter_context(private.append(path.with_suffix(".lock"))))
        except OSError as error:
            log.info("tokens are made without a look at who else makes them: %s: %s", path.parent, error.strerror)
        yield


def _wait_for(lock: IO[bytes]) -> None:
    """Wait until no other process holds it; raise `OSError` where it is held for too long."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise OSError(errno.ETIMEDOUT, f"another process holds its lock for {PATIENCE_SECONDS:.0f} s") from None
        time.sleep(0.05)
