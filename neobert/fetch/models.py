"""A model, or a tokenizer alone: those of its files from which it is loaded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePosixPath

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.fetch.repository import Repository, Snapshot, alone, download, look_up

log = logging.getLogger(__name__)

TEXTS = frozenset((
    ".json", ".txt", ".model", ".py", ".jinja", ".vocab", ".bpe", ".codes", ".spm", ".tiktoken",
))  # fmt: skip
"""Endings of configurations, of vocabularies, and of code for trust_remote_code."""
WEIGHTS = (
    (r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?"),
    (r"adapter_model\.safetensors", r"adapter_model\.bin"),
)
"""What PyTorch's models are loaded from; the second of two only where there is none of the first."""
MODULE = re.compile(r"\d+_\w+")
"""Directories of the modules that sentence-transformers puts behind an encoder, such as 1_Pooling."""


def fetch_model(wanted: HubName, again: bool) -> list[Snapshot]:
    """The model or tokenizer, and the code of other repositories that its configurations refer to."""
    repository = look_up("model", wanted.name, wanted.revision)
    texts, weights = files_to_load(repository.files)
    if wanted.kind == "model" and not weights:
        raise ConfigError(f"{wanted.name} holds neither model.safetensors nor pytorch_model.bin")
    with alone(repository):
        snapshot = download(repository, texts + weights if wanted.kind == "model" else texts, again)
        if "config.json" not in repository.files:
            _note_absence(repository)
    elsewhere = sorted(set(_code_elsewhere(snapshot.folder)) - {wanted.name})
    return [snapshot, *(_fetch_code(name, again) for name in elsewhere)]


def files_to_load(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """What `from_pretrained` may ask for, without and with numbers in it; nothing of other frameworks and formats."""
    texts: list[str] = []
    weights: list[str] = []
    by_folder = sorted(map(PurePosixPath, files), key=lambda path: (str(path.parent), path.name))
    for folder, paths in groupby(by_folder, key=lambda path: path.parent):
        names = [path.name for path in paths]
        is_ours = folder == PurePosixPath() or MODULE.fullmatch(str(folder)) is not None
        for first, second in WEIGHTS if is_ours else ():
            found = [[name for name in names if re.fullmatch(pattern, name)] for pattern in (first, second)]
            weights += [str(folder / name) for name in found[0] or found[1]]
        suffixes = TEXTS if is_ours else {".py"}  # code may have directories of its own
        kept = [name for name in names if PurePosixPath(name).suffix in suffixes and not _is_weights(name)]
        texts += [str(folder / name) for name in kept]
    return texts, weights


def _is_weights(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for patterns in WEIGHTS for pattern in patterns)


def _note_absence(repository: Repository) -> None:
    """transformers asks for a configuration of tokenizers too, and must know beforehand that there is none.

    Without a connection it takes no absence for granted but at a commit (`cached_files` in transformers/utils/hub.py).
    """
    with suppress(EntryNotFoundError):
        hf_hub_download(repository.name, "config.json", revision=repository.commit)
    if repository.revision != repository.commit:
        log.warning("%s has no config.json, and so loads without a connection only by its commit: set revision to %s",
                    repository.name, repository.commit)  # fmt: skip


def _code_elsewhere(folder: Path) -> Iterator[str]:
    """The repositories that configurations take code from, which they write as OWNER/NAME--MODULE.CLASS."""
    for path in folder.glob("*.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("auto_map", {}).values()
        except (ValueError, AttributeError):  # not JSON, or not a mapping
            continue
        for entry in found:
            for reference in entry if isinstance(entry, list) else [entry]:
                if "--" in str(reference):
                    yield str(reference).partition("--")[0]


def _fetch_code(name: str, again: bool) -> Snapshot:
    """transformers takes it from the main branch."""
    repository = look_up("model", name, None)
    with alone(repository):
        return download(repository, [path for path in repository.files if path.endswith(".py")], again)
