"""What is wrong with a file that cannot be read, as far as a look into it tells."""

from __future__ import annotations

import json
from pathlib import Path

from neobert.checkpoint.errors import UnusableCheckpoint

_MAPPINGS = ("config.json", "tokenizer_config.json", "tokenizer.json")
SENTENCEPIECE = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
"""Names of a tokenizer's sentencepiece model, which differ from model to model."""
_TEXTS = ("vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE)
"""What a model directory may hold beside its weights."""


def unreadable(file: Path, reason: str) -> UnusableCheckpoint:
    """An error that names the file and says what to do; `reason` is told where its first bytes look as they should."""
    return UnusableCheckpoint(f"{file} cannot be read: {fault_of(file) or reason}. Fetch or copy it again")


def fault_of(file: Path) -> str | None:
    """What the first bytes of a file tell of what has become of it; None where they may be right."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except OSError as error:
        return f"{error.strerror}"
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, and what it points to was never fetched (`git lfs pull` does)"
    return None if any(start) else "it holds zeros instead of data"


def check_small_files(directory: Path) -> None:
    """Raises `UnusableCheckpoint` for a damaged configuration or file of a tokenizer."""
    for name in (*_MAPPINGS, *_TEXTS):
        file = directory / name
        if file.is_file() and fault_of(file):
            raise unreadable(file, "")
        if file.is_file() and name in _MAPPINGS:
            found = read_mapping(file)
            for key in ("label2id", "id2label"):
                if not isinstance(found.get(key) or {}, dict):
                    raise unreadable(file, f"its {key} is no mapping of classes")


def read_mapping(file: Path) -> dict[str, object]:
    """Of JSON; raises `UnusableCheckpoint` for a file that holds anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(file, f"it is damaged ({error})") from None
    if not isinstance(found, dict):
        raise unreadable(file, "it is damaged (expected a mapping)")
    return found
