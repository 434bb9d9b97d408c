"""Nothing of a document is lost when it is tokenised and cut, and a tokenizer is known again wherever it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text import pieces
from neobert.data.text.pieces import Cutter, fingerprint, kind_of_ids, specials
from neobert.data.tokenizing import train_wordpiece

TEXTS = [pair[0] for pair in generated_splits(TASKS["sst2"], 60).train.texts]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_wordpiece([(text,) for text in TEXTS], 200, 10**9)


def joined(cut: list[np.ndarray]) -> list[int]:
    return [token for piece in cut for token in piece.tolist()[1:-1]]


def test_every_token_of_every_document_is_in_a_piece(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = ["", *TEXTS, "   ", " ".join(TEXTS)]
    found = list(Cutter(tokenizer, 16)(texts))
    assert len(found) == len(texts)
    for text, cut in zip(texts, found, strict=True):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert joined(cut) == expected
        assert len(cut) == -(-len(expected) // 14)
        assert all(len(piece) == 16 for piece in cut[:-1])
        assert all((piece[0], piece[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for piece in cut)
    assert found[0] == found[-2] == []


def test_documents_come_with_their_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    assert [text for text, _ in Cutter(tokenizer, 16).with_texts(TEXTS)] == TEXTS


@pytest.mark.parametrize("space", [" ", "\n", "  "])
def test_a_long_document_is_tokenised_in_bites_and_is_the_same(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    text = space.join(TEXTS)
    (expected,) = Cutter(tokenizer, 32)([text])
    seen: list[int] = []
    monkeypatch.setattr(pieces, "BITE", 50)
    bites = pieces._bites

    def noted(text: str) -> Iterator[str]:
        for bite in bites(text):
            seen.append(len(bite))
            yield bite

    monkeypatch.setattr(pieces, "_bites", noted)
    (found,) = Cutter(tokenizer, 32)([text])
    assert len(seen) > 20
    assert max(seen) <= 50
    assert sum(seen) == len(text)
    assert [piece.tolist() for piece in found] == [piece.tolist() for piece in expected]


def test_a_text_without_spaces_is_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BITE", 10)
    assert list(pieces._bites("x" * 25)) == ["x" * 10, "x" * 10, "x" * 5]
    assert list(pieces._bites("ab " + "x" * 15)) == ["ab", " xxxxxxxxx", "xxxxxx"]


def test_only_some_documents_are_held_at_a_time(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "TOGETHER", 7)
    monkeypatch.setattr(pieces, "CHARACTERS", 100)
    taken = 0

    def documents() -> Iterator[str]:
        nonlocal taken
        for text in ["a"] * 50 + ["b " * 30] * 50:
            taken += 1
            yield text

    for number, _ in enumerate(Cutter(tokenizer, 16)(documents()), start=1):
        assert taken <= number + 7
        assert number <= 60 or taken <= number + 2


def test_settings_of_truncation_in_the_tokenizer_do_not_matter(minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 128
    (cut,) = Cutter(tokenizer, 512)(["word " * 1000])
    assert [len(piece) for piece in cut] == [512, 492]


def test_a_tokenizer_that_marks_no_ends_gives_bare_pieces(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    bare = AutoTokenizer.from_pretrained(tmp_path)
    bare.backend_tokenizer.post_processor = None
    assert [ids.tolist() for ids in specials(bare)] == [[], []]
    (cut,) = Cutter(bare, 8)([" ".join(TEXTS[:3])])
    assert [token for piece in cut for token in piece.tolist()] == bare(" ".join(TEXTS[:3]))["input_ids"]


def test_a_tokenizer_that_makes_nothing_of_a_letter_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from tokenizers import normalizers

    tokenizer.save_pretrained(tmp_path)
    odd = AutoTokenizer.from_pretrained(tmp_path)
    odd.backend_tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(ConfigError, match=r"tokenizer: makes \[\] of 'a'"):
        specials(odd)


def test_the_fingerprint_is_that_of_what_is_made_of_texts(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    known = fingerprint(tokenizer)
    for name in ("one", "two"):
        tokenizer.save_pretrained(tmp_path / name)
        again = AutoTokenizer.from_pretrained(tmp_path / name)
        assert fingerprint(again) == known
    again(TEXTS, truncation=True, max_length=5, padding=True)  # the backend remembers these
    assert fingerprint(again) == known
    assert fingerprint(train_wordpiece([(text,) for text in TEXTS], 150, 10**9)) != known
    again.add_special_tokens({"additional_special_tokens": ["[EXTRA]"]})
    assert fingerprint(again) != known


def test_ids_take_no_more_bytes_than_they_need() -> None:
    assert [kind_of_ids(size) for size in (100, 1 << 16, (1 << 16) + 1)] == ["<u2", "<u2", "<u4"]


def test_a_tokenizer_in_python_works_as_well(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    class Slow:
        """Has no fast backend."""

        def __init__(self, inner: PreTrainedTokenizerBase):
            self.get_vocab, self.all_special_ids = inner.get_vocab, inner.all_special_ids
            self._inner = inner

        def __call__(self, *arguments: object, **options: object) -> object:
            return self._inner(*arguments, **options)

    slow = Slow(tokenizer)
    expected, found = (list(Cutter(one, 16)(TEXTS)) for one in (tokenizer, slow))  # type: ignore[arg-type]
    assert [[p.tolist() for p in cut] for cut in found] == [[p.tolist() for p in cut] for cut in expected]
    assert fingerprint(slow) not in ("", fingerprint(tokenizer))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_options_of_a_tokenizer_in_python_change_its_fingerprint_and_places_do_not(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, option: str
) -> None:
    """They do not show in its vocabulary."""
    from transformers import BertTokenizerLegacy

    words = [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*words, "\u4e2d", "##\u6587", "\u6587"]))
    options = {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}
    one, other = (BertTokenizerLegacy(file, **{**options, option: value}) for value in (False, True))
    assert one.get_vocab() == other.get_vocab()
    assert fingerprint(one) != fingerprint(other)
    other.save_pretrained(tmp_path / "saved")
    assert fingerprint(BertTokenizerLegacy.from_pretrained(tmp_path / "saved")) == fingerprint(other)
