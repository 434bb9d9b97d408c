"""Two reasons why a model's tokenizer is not what it was: a missing package, and entries that no text reaches.

Hugging Face's loading is lenient here, too. A cased vocab.txt that comes without its tokenizer_config.json is read as
one that lower-cases: every name is then cut into pieces, or unknown.
"""

from __future__ import annotations

import importlib.util
import logging
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from neobert.checkpoint.damage import SENTENCEPIECE
from neobert.config.extras import install
from neobert.data.text.words import space_mark

log = logging.getLogger(__name__)

PACKAGES = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
"""Packages that read a sentencepiece model, and how each is imported."""
BYTES = "Ġ"
"""The space, where tokens are bytes that are written as characters."""
SAMPLE = 5000
"""Entries of a vocabulary that are looked at, evenly spread: a hundredth of a second."""
TOO_MANY = 0.005
"""The share of lost entries that is worth a warning; BERT's uncased vocabulary has 30,517 entries, and none is lost."""


def missing_packages(source: str, error: str = "") -> str | None:
    """Explain why a tokenizer that is a sentencepiece model cannot be loaded; the library's own message misleads.

    `source` is a directory, or a name on the hub with the `error` that the library has raised for it.
    """
    missing = [package for package, module in PACKAGES.items() if not _is_installed(module)]
    directory = Path(source)
    if directory.is_dir():
        alone = not (directory / "tokenizer.json").is_file()
        files = [name for name in SENTENCEPIECE if alone and (directory / name).is_file()]
    else:  # after sentencepiece, the library tries tiktoken
        files = ["*.model"] if "tiktoken" in error or "sentencepiece" in error.lower() else []
    if not missing or not files:
        return None
    return (
        f"{source!r} has its tokenizer as a sentencepiece model ({files[0]}), which cannot be read without the package "
        f"{' and '.join(missing)}: {install('train')}"
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it would lie in is missing, too
        return False


def warn_of_lost_entries(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say once if texts never reach a part of the vocabulary, and which key decides that."""
    looked_at, lost = _lost_entries(tokenizer)
    if len(lost) <= TOO_MANY * looked_at:
        return
    what, key = "rewrites texts", ""
    if any(text != text.lower() and seen == seen.lower() for text, seen in lost.items()):
        what, key = "lower-cases texts", "do_lower_case"
    elif any(unicodedata.normalize("NFD", text) != text for text in lost):
        what, key = "strips accents", "strip_accents"
    advice = f'. If they are meant to, put "{key}": false into its tokenizer_config.json' if key else ""
    some = ", ".join(sorted(lost, key=lambda entry: (-len(entry), entry))[:4])
    share = max(1, round(100 * len(lost) / looked_at))
    _tell(f"{share} % of the vocabulary of {source} ({some}, ...) can never come out of its tokenizer, which {what} "
          f"first{advice}")  # fmt: skip


@cache
def _tell(message: str) -> None:
    log.warning("%s", message)


def _lost_entries(tokenizer: PreTrainedTokenizerBase) -> tuple[int, dict[str, str]]:
    """Count the entries that were looked at; return those that the normalizer rewrites, with what becomes of each."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is None:
        return 0, {}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}  # taken out of texts first
    entries = sorted(backend.get_vocab().keys() - added)
    mark = space_mark(backend)
    texts = list(_texts(backend, mark, entries[:: -(-len(entries) // SAMPLE) or 1]))
    seen = {text: backend.normalizer.normalize_str(text) for text in texts}
    if mark != BYTES:
        seen = {text: normal.replace(mark, " ") for text, normal in seen.items()}
    return len(texts), {text: normal for text, normal in seen.items() if text not in normal}


def _texts(backend: Tokenizer, mark: str, entries: list[str]) -> Iterator[str]:
    """Yield entries as they stand in texts, without the marks of words; of bytes, those that are whole characters."""
    prefix = getattr(backend.model, "continuing_subword_prefix", None) or ""
    suffix = getattr(backend.model, "end_of_word_suffix", None) or ""
    decoder = ByteLevel() if mark == BYTES else None
    for entry in entries:
        text = entry.removeprefix(prefix).removesuffix(suffix)
        text = (decoder.decode([text]) if decoder else text.replace(mark, " ")).strip()
        if text and "\ufffd" not in text:
            yield text
