"""Pieces come back from disk as they were, and files that are not whole are told."""

from __future__ import annotations

import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neobert.config import ConfigError
from neobert.data.text.pieces import Ids
from neobert.data.text.shards import ShardFiles, Shards, read_manifest, write_manifest, write_shard
from neobert.errors import RunError
from tests.neobert.conftest import REPOSITORY
from tests.neobert.damage import Damage, flip_bit, zero_end, zero_page


def piece(number: int) -> Ids:
    return np.full(number % 5 + 1, number, np.int64)


def write(directory: Path, shards: int = 3, each: int = 10, vocabulary: int = 100) -> None:
    """Piece n is of n mod 5 + 1 times the number n; every fourth is held out."""
    (directory / "shards").mkdir(exist_ok=True)
    sizes: dict[str, list[list[int]]] = {"train": [], "validation": []}
    for shard in range(shards):
        numbers = range(shard * each, (shard + 1) * each)
        pieces = (("train" if number % 4 else "validation", piece(number)) for number in numbers)
        made = write_shard(ShardFiles(directory, shard), pieces, vocabulary)
        for split, counts in made.items():
            sizes[split].append([counts["pieces"], counts["tokens"]])
    write_manifest(directory, {"sizes": sizes, "tokenizer": {"vocabulary": vocabulary}})


@pytest.mark.parametrize(("vocabulary", "bytes_each"), [(100, 2), (70_000, 4)])
def test_pieces_come_back_in_order(tmp_path: Path, vocabulary: int, bytes_each: int) -> None:
    write(tmp_path, vocabulary=vocabulary)
    train, held_out = Shards(tmp_path, "train"), Shards(tmp_path, "validation")
    assert [train[n].tolist() for n in range(len(train))] == [piece(n).tolist() for n in range(30) if n % 4]
    assert [held_out[n].tolist() for n in range(len(held_out))] == [piece(n).tolist() for n in range(0, 30, 4)]
    assert train[0].dtype == np.int64
    sizes = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.ids"))
    assert sizes == bytes_each * sum(len(piece(n)) for n in range(30))


def test_the_largest_ids_survive(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    write_shard(ShardFiles(tmp_path, 0), [("train", np.array([0, 65535], np.int64))], 1 << 16)
    write_manifest(tmp_path, {"sizes": {"train": [[1, 2]]}, "tokenizer": {"vocabulary": 1 << 16}})
    assert Shards(tmp_path, "train")[0].tolist() == [0, 65535]


def test_shards_go_to_another_process_without_what_they_have_mapped(tmp_path: Path) -> None:
    write(tmp_path, each=1000)
    shards = Shards(tmp_path, "train")
    before = pickle.dumps(shards)
    first = shards[0].tolist()
    assert len(pickle.dumps(shards)) == len(before)
    assert pickle.loads(before)[0].tolist() == first


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    made = write_shard(ShardFiles(tmp_path, 0), [("train", piece(3))], 100)
    assert made == {"train": {"pieces": 1, "tokens": 4}, "validation": {"pieces": 0, "tokens": 0}}
    write_manifest(tmp_path, {"sizes": {"validation": [[0, 0]]}, "tokenizer": {"vocabulary": 100}})
    assert len(Shards(tmp_path, "validation")) == 0


@pytest.mark.parametrize("damage", [flip_bit, zero_page, zero_end])
@pytest.mark.parametrize("kind", ["ids", "ends", "crc32"])
def test_a_piece_that_is_not_what_was_written_is_told_with_what_to_do(
    tmp_path: Path, kind: str, damage: Damage
) -> None:
    """All files keep their sizes. Of shards that an older version made, nothing tells."""
    write(tmp_path, each=1000)
    file = tmp_path / "shards" / f"train-00001.{kind}"
    damage(file)
    old = Shards(tmp_path, "train")
    assert len(old) == 2250
    manifest = read_manifest(tmp_path)
    write_manifest(tmp_path, manifest | {"checksums": "crc32"})
    shards = Shards(tmp_path, "train")
    told = rf"train-00001.ids: its piece \d+ is not what was written.*Remove {tmp_path}/shards/00001.json. The same"
    with pytest.raises(ConfigError, match=told):
        [shards[number] for number in range(len(shards))]
    assert [shards[n].tolist() for n in (0, 749, 1500)] == [piece(n).tolist() for n in (1, 999, 2001)]


def test_a_shard_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()

    def broken() -> Iterator[tuple[str, Ids]]:
        yield "train", piece(3)
        raise RunError("the source ends here")

    with pytest.raises(RunError, match="the source ends here"):
        write_shard(ShardFiles(tmp_path, 0), broken(), 100)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: its error comes in the same place."""
    program = (
        "import itertools, pathlib, sys, numpy\n"
        "from neobert.data.text.shards import ShardFiles, write_shard\n"
        "from neobert.errors import RunError\n"
        "endless = itertools.repeat(('train', numpy.ones(999)))\n"
        "try: write_shard(ShardFiles(pathlib.Path(sys.argv[1]), 7), endless, 100)\n"
        "except RunError as error: print(error)\n"
    )
    (tmp_path / "shards").mkdir()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, preexec_fn=limit, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"shard 7 cannot be written to {tmp_path}/shards: File too large\n"
    assert list((tmp_path / "shards").iterdir()) == [], "no half a shard takes up room on a full disk"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-00001.ids", "cut", r"train-00001.ids: is damaged: it has 47 bytes and not 50"),
        ("train-00001.ends", "cut", r"train-00001.ends: is damaged: it has 61 bytes and not 64"),
        ("validation-00002.ids", "remove", r"validation-00002.ids: cannot be read: No such file or directory"),
        ("train-00000.ends", "remove", r"train-00000.ends: cannot be read: No such file or directory"),
    ],
)
def test_files_that_are_not_whole_are_named(tmp_path: Path, name: str, damage: str, message: str) -> None:
    write(tmp_path)
    path = tmp_path / "shards" / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    with pytest.raises(ConfigError, match=rf"{message}.*makes its shard again"):
        Shards(tmp_path, name.split("-")[0])


def test_a_directory_without_finished_shards_is_told(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(ConfigError) as caught:
            read_manifest(tmp_path / name)
        return str(caught.value).removeprefix(f"{tmp_path}/")

    assert message("none") == "none: no such directory"
    (tmp_path / "other").mkdir()
    assert message("other") == "other: holds no shards of `neobert preprocess`"
    (tmp_path / "begun" / "shards").mkdir(parents=True)
    assert message("begun").startswith("begun: its shards are not merged yet: run `neobert preprocess` to the end")
    for text, reason in (("{", "cannot be read: Expecting"), ("[]", "is damaged: expected a mapping"),
                         ('{"schema": 99}', "is of version 99, and this program reads version 1")):  # fmt: skip
        (tmp_path / "other" / "manifest.json").write_text(text)
        assert message("other").startswith(f"other/manifest.json: {reason}")
