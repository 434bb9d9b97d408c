"""Files of text that `neobert fetch` has brought into the cache of the hub's library.

They keep their addresses, `hf://datasets/NAME@COMMIT/PATH`: shards and trainings go on whether they are read from here
or there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from neobert.training.files import read_json, write_json

ADDRESS = re.compile(r"hf://datasets/([^@]+)@([0-9a-f]{40})/(.+)")
"""Of a file at a commit, which can never change."""


def remember(name: str, commit: str, config: str | None, split: str, paths: Sequence[str]) -> None:
    """Notes which files of a data set are those of a split."""
    note = _note(name, commit, config, split)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"config": config, "split": split, "files": list(paths)})


def recall(name: str, revision: str | None, config: str | None, split: str) -> list[str] | None:
    """The addresses of the files of a split, or None if they were not fetched."""
    commit = revision or "main"
    reference = _place(name) / "refs" / commit
    if reference.is_file():
        commit = reference.read_text()
    note = _note(name, commit, config, split)
    if not note.is_file():
        return None
    addresses = [f"hf://datasets/{name}@{commit}/{path}" for path in read_json(note)["files"]]
    return addresses if all(map(here, addresses)) else None


def here(address: str) -> str | None:
    """Where the file with that address lies in the cache, if it does."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        return None
    name, commit, path = match.groups()
    found = try_to_load_from_cache(name, path, revision=commit, repo_type="dataset")
    return found if isinstance(found, str) else None


def _note(name: str, commit: str, config: str | None, split: str) -> Path:
    # Names of configurations may hold whatever a file system does not like.
    digest = hashlib.sha256(json.dumps([config, split]).encode()).hexdigest()[:16]
    return _place(name) / "splits" / commit / f"{digest}.json"


def _place(name: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
