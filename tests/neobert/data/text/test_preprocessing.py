"""Shards know what they were made of: the same wherever it lies, and refused once it is something else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError, PreprocessConfig, validate
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text import documents, preprocessing
from neobert.data.text.corpus import find_corpus
from neobert.data.text.preprocessing import Work, find_tokenizer, is_done, make_shard, merge, plan
from neobert.data.text.shards import Shards
from neobert.errors import RunError

TEXTS = [pair[0] for pair in generated_splits(TASKS["sst2"], 300).train.texts]
Planner = Callable[..., Work]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Work on two files in small blocks and shards; settings can be changed."""
    monkeypatch.setattr(documents, "BYTES", 1000)
    (tmp_path / "corpus" / "sub").mkdir(parents=True)
    (tmp_path / "corpus" / "a.txt").write_text("\n".join(TEXTS[:200]))
    (tmp_path / "corpus" / "sub" / "b.txt").write_text("\n".join([*TEXTS[200:], " ".join(TEXTS[:20]), "...", "\x07"]))
    monkeypatch.chdir(tmp_path)

    def plan_with(**change: Any) -> Work:
        settings = {
            "data": {"files": ["corpus"]}, "tokenizer": {"train_vocab_size": 200}, "output": "shards",
            "max_seq_length": 32, "validation_fraction": 0.1, "shard_bytes": 4000,
        }  # fmt: skip
        config = validate(PreprocessConfig, settings | change)
        source = find_corpus(config.data, ("data",))
        return plan(config, source, find_tokenizer(config, source))

    return plan_with


def make(work: Work) -> dict[str, Any]:
    for number in range(len(work.shards)):
        make_shard(work, number)
    return merge(work)


def refusal(planned: Planner, **change: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        merge(planned(**change))
    return str(caught.value)


def test_every_document_is_in_the_shards(planned: Planner) -> None:
    work = planned()
    assert len(work.shards) > 3
    manifest = make(work)
    assert (manifest["documents"], manifest["without_text"], manifest["cut"]) == (303, 1, 1)
    shards = {split: Shards(Path("shards"), split) for split in ("train", "validation")}
    found = [tuple(pieces[n].tolist()) for pieces in shards.values() for n in range(len(pieces))]
    texts = [*TEXTS, " ".join(TEXTS[:20]), "...", "\x07"]
    expected = [tuple(piece.tolist()) for cut in work.cutter(texts) for piece in cut]
    assert sorted(found) == sorted(expected)
    assert manifest["train"]["pieces"] == len(shards["train"])
    assert manifest["train"]["tokens"] + manifest["validation"]["tokens"] == sum(map(len, found))


def test_the_same_text_is_held_out_wherever_it_stands(planned: Planner) -> None:
    with Path("corpus/z.txt").open("w") as file:
        file.write("\n".join(reversed(TEXTS)))
    make(planned())
    train, held_out = (
        {tuple(pieces[n].tolist()) for n in range(len(pieces))}
        for pieces in (Shards(Path("shards"), split) for split in ("train", "validation"))
    )
    whole = {tokens for tokens in held_out if len(tokens) < 32}
    assert 15 <= len(whole) <= 50
    assert not whole & train


def test_the_manifest_tells_source_and_tokenizer(planned: Planner) -> None:
    manifest = make(planned())
    sizes = {name: Path("corpus", name).stat().st_size for name in ("a.txt", "sub/b.txt")}
    assert manifest["identity"]["source"] == [[name, size] for name, size in sizes.items()]
    assert manifest["tokenizer"]["fingerprint"] == manifest["identity"]["tokenizer"]
    assert len(manifest["digest"]) == 64
    assert json.loads(Path("shards/manifest.json").read_text()) == {"schema": 1, **manifest}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_seq_length": 64}, "max_seq_length 32 then, 64 now"),
        ({"validation_fraction": 0.0}, "validation_fraction 0.1 then, 0.0 now"),
        (
            {"shard_bytes": 5000, "max_seq_length": 16},
            "max_seq_length 32 then, 16 now; shard_bytes 4000 then, 5000 now",
        ),
        ({"data": {"files": ["corpus"], "whole_files": True}}, "whole_files False then, True now"),
        ({"tokenizer": {"train_vocab_size": 150}}, "train_vocab_size 200 then, 150 now"),
        ({"data": {"files": ["corpus/a.txt"]}}, "files of the source are gone: sub/b.txt"),
        ({"data": {"files": ["corpus/sub", "corpus/a.txt"]}}, "the files of the source had another order"),
    ],
)
def test_other_settings_are_refused(planned: Planner, change: dict[str, Any], message: str) -> None:
    make(planned())
    told = refusal(planned, **change)
    assert told.startswith("output: shards")
    assert message in told
    assert told.endswith(". Choose another directory, or remove this one to make its shards anew")


def test_another_tokenizer_is_refused(planned: Planner, minilm: Path) -> None:
    make(planned())
    assert "tokenizer " in refusal(planned, tokenizer={"name_or_path": str(minilm)})
    shutil.rmtree("shards")
    make(planned(tokenizer={"name_or_path": str(minilm)}))
    assert "shards/tokenizer is a tokenizer that was not learned for these shards" in refusal(planned)


def test_files_that_changed_are_named(planned: Planner) -> None:
    make(planned())
    before = Path("corpus/a.txt").read_text()
    Path("corpus/a.txt").write_text(before + "more")
    assert "files of the source are changed: a.txt" in refusal(planned)
    Path("corpus/a.txt").write_text(before)
    Path("corpus/new.txt").write_text("x")
    Path("corpus/newer.txt").write_text("x")
    assert "files of the source are new: new.txt, ..." in refusal(planned)


def test_a_change_that_keeps_the_size_is_found_too(planned: Planner) -> None:
    make(planned())
    path = Path("corpus/a.txt")
    text = path.read_text()
    middle = text.index(" ", len(text) // 2)
    path.write_text(text[:middle] + "x" + text[middle + 1 :])
    assert "is a shard of other text than now is in corpus/a.txt" in refusal(planned)


def test_the_time_of_a_file_does_not_matter(planned: Planner) -> None:
    manifest = make(planned())
    os.utime("corpus/a.txt", (1, 1))
    work = planned()
    read: list[int] = []
    documents = Work.documents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "documents", lambda self, number: read.append(number) or documents(self, number))
        assert merge(work) == manifest
        assert 0 < len(read) < len(work.shards), "only what is of this file is read again"
        read.clear()
        assert merge(planned()) == manifest
        assert read == [], "and only once"


def test_source_and_shards_may_be_moved(planned: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make(planned())
    assert merge(planned(data={"files": [str(tmp_path / "corpus")]})) == manifest
    assert merge(planned(data={"files": ["corpus/a.txt", "./corpus/sub/../sub/b.txt"]})) == manifest
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus").rename(tmp_path / "elsewhere" / "text")
    (tmp_path / "shards").rename(tmp_path / "elsewhere" / "made")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert merge(planned(data={"files": ["text"]}, output="made")) == manifest


def test_a_shard_that_was_left_from_other_settings_is_refused(planned: Planner) -> None:
    make_shard(planned(), 0)
    Path("shards/identity.json").unlink()
    work = planned(max_seq_length=16)
    with pytest.raises(ConfigError, match=r"^output: shards/shards/00000.json is a shard of other settings\. Choose"):
        is_done(work, 0)


def test_missing_shards_are_named(planned: Planner) -> None:
    work = planned(shard_bytes=1000)
    make_shard(work, 1)
    with pytest.raises(RunError) as caught:
        merge(work)
    total = len(work.shards)
    assert total > 12
    listed = "0, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."
    assert str(caught.value) == f"{total - 1} of {total} shards in shards are not made yet: {listed}"
    assert not Path("shards/manifest.json").exists()


def test_leftovers_of_killed_attempts_go(planned: Planner) -> None:
    work = planned()
    Path("shards/shards/.train-00000.ids.node1.77").write_text("half")
    make(work)
    assert not list(Path("shards/shards").glob(".*"))


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_an_empty_corpus_is_refused(planned: Planner, minilm: Path, content: str) -> None:
    Path("none").mkdir()
    Path("none/a.txt").write_text(content)
    Path("none/b.txt").write_text(content)
    with pytest.raises(ConfigError, match=r"^data: holds no text"):
        make(planned(data={"files": ["none"]}, tokenizer={"name_or_path": str(minilm)}))
    assert not Path("shards/manifest.json").exists()


def test_a_missing_file_is_told_at_its_setting(planned: Planner) -> None:
    assert refusal(planned, data={"files": ["corpus", "no.txt"]}).startswith(
        "data.files: no.txt: there is no such file"
    )


def test_parts_wait_for_the_tokenizer(planned: Planner) -> None:
    with pytest.raises(ConfigError, match=r"^tokenizer.train_vocab_size: there is no shards/tokenizer yet: learn it"):
        planned(step="part", part=0)
    assert not Path("shards").exists()


def test_a_tokenizer_is_learned_from_a_sample_of_a_large_corpus(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = planned().source
    total = sum(map(len, TEXTS))
    assert len(list(source.sample(10**9))) == 303
    some = list(source.sample(total // 4))
    assert total // 8 < sum(map(len, some)) <= total // 2
    assert some[0] == TEXTS[0]
    assert any(text in TEXTS[200:] for text in some)
    shutil.rmtree("shards")
    monkeypatch.setattr(preprocessing, "LEARN_FROM", total // 4)
    assert len(planned().cutter.tokenizer) <= 200


def test_a_directory_that_cannot_be_made_is_told(planned: Planner, minilm: Path) -> None:
    Path("file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"^output: file/shards cannot be made: Not a directory$"):
        planned(output="file", tokenizer={"name_or_path": str(minilm)})


def test_a_damaged_summary_is_told(planned: Planner) -> None:
    work = planned()
    make_shard(work, 0)
    Path("shards/shards/00000.json").write_text("{")
    with pytest.raises(RunError, match=r"shards/shards/00000.json is damaged"):
        is_done(work, 0)
