from __future__ import annotations

from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.config.text import TextFiles
from neobert.data.grammar import document
from neobert.data.text.corpus import Corpus, find_corpus


def documents(corpus: Corpus) -> list[str]:
    return [text for block in corpus.blocks for text in corpus.reader.documents(block)]


def test_generated_documents_are_read_in_blocks_like_those_of_files() -> None:
    corpus = find_corpus(TextFiles(generated=600), ("data",))
    assert len(corpus.blocks) == 3
    assert documents(corpus) == [document(number) for number in range(600)]
    assert corpus.identity == [["generated", 600]]
    assert set(corpus.versions) == {block.path for block in corpus.blocks}
    size = sum(map(len, documents(corpus)))
    assert 0.8 < sum(block.size for block in corpus.blocks[:2]) / (size * 512 / 600) < 1.2, "jobs are shared out by it"


def test_a_sample_is_of_the_whole_corpus() -> None:
    corpus = find_corpus(TextFiles(generated=100 * 256), ("data",))
    some = list(corpus.sample(2_000_000))
    assert 1_900_000 < sum(map(len, some)) < 2_100_000
    assert document(0) in some
    assert any(document(90 * 256 + number) in some for number in range(0, 9 * 256))


def test_files_are_known_by_name_and_size_and_time(tmp_path: Path) -> None:
    for name in ("a/one.txt", "b/two.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    corpus = find_corpus(TextFiles(files=[str(tmp_path)]), ("data",))
    assert corpus.identity == [["a/one.txt", 9], ["b/two.txt", 9]]
    assert documents(corpus) == ["a/one.txt", "b/two.txt"]
    before = corpus.versions
    (tmp_path / "a/one.txt").write_text("changed!!")
    again = find_corpus(TextFiles(files=[str(tmp_path)]), ("data",))
    assert again.identity == corpus.identity
    assert [again.versions[path] == before[path] for path in before] == [False, True]


def test_no_text_is_told_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigError, match=r"^dataset\.validation: holds no text: nothing is in \S+empty.txt\. Name"):
        find_corpus(TextFiles(files=[str(tmp_path)]), ("dataset", "validation"))
    with pytest.raises(ConfigError, match=r"^data\.files: no/file: there is no such file"):
        find_corpus(TextFiles(files=["no/file"]), ("data",))
