"""Files of a data set that were fetched are read here, under the addresses that they have on the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from neobert.data.text.documents import Reader, blocks
from neobert.data.text.fetched import here, recall, remember
from neobert.data.text.files import size_and_version
from neobert.data.text.finding import find_on_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a data set in it, as the hub's library leaves it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "datasets--o--c"
    folder = place / "snapshots" / COMMIT
    (folder / "en").mkdir(parents=True)
    for number in range(2):
        (folder / "en" / f"{number}.txt").write_text(f"text {number}\n")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return folder


def test_the_files_of_a_split_are_those_that_were_noted(snapshot: Path) -> None:
    remember("o/c", COMMIT, "en", "train", ["en/1.txt", "en/0.txt"])
    addresses = [f"hf://datasets/o/c@{COMMIT}/en/{number}.txt" for number in (1, 0)]
    for revision in (None, "main", COMMIT):
        assert recall("o/c", revision, "en", "train") == addresses
    assert recall("o/c", "v2", "en", "train") is None
    assert recall("o/c", None, None, "train") is None
    assert recall("o/c", None, "en", "test") is None
    assert recall("o/other", None, "en", "train") is None
    (snapshot / "en" / "0.txt").unlink()
    assert recall("o/c", None, "en", "train") is None, "half of it is nothing"


def test_an_address_leads_to_the_file(snapshot: Path) -> None:
    address = f"hf://datasets/o/c@{COMMIT}/en/0.txt"
    assert here(address) == str(snapshot / "en" / "0.txt")
    assert size_and_version(address)[0] == 7
    for other in (address.replace("0.txt", "9.txt"), address.replace(COMMIT, "main"), "s3://o/c", str(snapshot)):
        assert here(other) is None


def test_without_a_connection_they_are_read(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    remember("o/c", COMMIT, "en", "train", ["en/0.txt", "en/1.txt"])
    files = find_on_hub("o/c", "en", "train", None)
    assert [text for block in blocks(files, Reader()) for text in Reader().documents(block)] == ["text 0", "text 1"]
