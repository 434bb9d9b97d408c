"""Where words begin is read off a tokenizer's model and pre-tokenizer, whatever entries its vocabulary has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from neobert.data.text.words import WordMarks, word_marks
from neobert.data.tokenizing import train_wordpiece

TEXT = "the ▁▂▃ film unbelievable rewording Ġa Ċb x@@ y</w> preprocessing and rewording"


def words_of(tokenizer: PreTrainedTokenizerBase, marks: WordMarks, text: str) -> list[str]:
    """The tokens of a text, put together into words by the marks."""
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    begins = marks.begins[ids] | np.roll(marks.ends[ids], 1)
    begins[0] = True
    found: list[list[str]] = []
    for begin, token in zip(begins, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if begin:
            found.append([])
        found[-1].append(token)
    return ["".join(tokens) for tokens in found]


def learned(model: Any, trainer: Any, pre: Any, normalizer: Any = None, **options: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model(**options))
    backend.pre_tokenizer, backend.normalizer = pre, normalizer
    special = {"special_tokens": ["[PAD]", "[UNK]", "[MASK]"], "show_progress": False, "vocab_size": 90}
    given = {"unk_token": "[UNK]"} if trainer is trainers.UnigramTrainer else options
    backend.train_from_iterator([TEXT] * 5, trainer(**special, **given))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMAS = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
KINDS: dict[str, tuple[Any, ...]] = {
    "byte-level BPE": (models.BPE, trainers.BpeTrainer, BYTES),
    "byte-level after punctuation": (
        models.BPE, trainers.BpeTrainer, pre_tokenizers.Sequence([pre_tokenizers.Digits(), BYTES])),
    "sentencepiece": (models.Unigram, trainers.UnigramTrainer, pre_tokenizers.Metaspace()),
    "sentencepiece with another mark": (models.BPE, trainers.BpeTrainer, pre_tokenizers.Metaspace(replacement="_")),
    "sentencepiece by its normalizer": (models.BPE, trainers.BpeTrainer, pre_tokenizers.Split("▁", "merged_with_next"),
                                        LLAMAS),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_words_begin_where_the_text_has_white_space(kind: str) -> None:
    tokenizer = learned(*KINDS[kind])
    text = "the rewording and the preprocessing film"
    found = words_of(tokenizer, word_marks(tokenizer), text)
    assert [word.strip("Ġ▁_") for word in found] == text.split()


@pytest.mark.parametrize("options", [{"end_of_word_suffix": "</w>"}, {"continuing_subword_prefix": "@"}])
def test_words_begin_where_the_model_marks_them(options: dict[str, str]) -> None:
    tokenizer = learned(models.BPE, trainers.BpeTrainer, pre_tokenizers.WhitespaceSplit(), **options)
    found = words_of(tokenizer, word_marks(tokenizer), "the rewording and the film")
    assert [word.replace("</w>", "").replace("@", "") for word in found] == ["the", "rewording", "and", "the", "film"]


def test_entries_that_look_like_the_marks_of_others_mark_nothing() -> None:
    """A text with block elements gives a WordPiece vocabulary such entries, and one in Maltese a sentencepiece."""
    tokenizer = train_wordpiece([(TEXT,)] * 50, 1500, 64)
    assert "▁▂▃" in tokenizer.get_vocab()
    marks = word_marks(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert [token for token, begins in zip(tokens, marks.begins, strict=True) if not begins] == [
        token for token in tokens if token.startswith("##")
    ]
    assert not marks.ends.any()
    sentencepiece = learned(*KINDS["sentencepiece"])
    marks = word_marks(sentencepiece)
    assert not marks.begins[sentencepiece.get_vocab()["Ġ"]], "a letter within a word"


def test_white_space_of_any_kind_begins_a_word_of_byte_level_bpe() -> None:
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate("ĠĊĉčab")}, []))
    backend.pre_tokenizer = BYTES
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert words_of(tokenizer, word_marks(tokenizer), "a b\na\tb\ra") == ["a", "Ġb", "Ċa", "ĉb", "ča"]


@pytest.mark.parametrize("pre", [pre_tokenizers.Whitespace(), pre_tokenizers.BertPreTokenizer()])
def test_a_tokenizer_that_does_not_mark_words_is_refused(pre: Any) -> None:
    with pytest.raises(ValueError, match="does not mark where words begin"):
        word_marks(learned(models.BPE, trainers.BpeTrainer, pre))


def phobert(directory: Path) -> PreTrainedTokenizerBase:
    (directory / "dict.txt").write_text("un@@ 3\nword 2\ned 2\n▁x 1\nx</w> 1\n##y 1\n")
    (directory / "bpe.txt").write_text("u n 3\n")
    return transformers.PhobertTokenizer(str(directory / "dict.txt"), str(directory / "bpe.txt"))


def japanese(directory: Path) -> PreTrainedTokenizerBase:
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##word\n▁x\nx</w>\ny@@\n")
    return transformers.BertJapaneseTokenizer(
        str(directory / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece"
    )


@pytest.mark.parametrize(
    ("make", "row", "words"),
    [(phobert, "un@@ word ed ▁x x</w>", [0, 0, 1, 1, 1]), (japanese, "un ##word un ▁x x</w> y@@", [0, 0, 1, 1, 1, 1])],
)
def test_a_tokenizer_in_python_is_asked_how_it_joins_tokens(
    make: Any, row: str, words: list[int], tmp_path: Path
) -> None:
    tokenizer = make(tmp_path)
    marks, known = word_marks(tokenizer), tokenizer.get_vocab()
    ids = [known[token] for token in row.split()]
    begins = marks.begins[ids] | np.roll(marks.ends[ids], 1)
    assert begins[1:].tolist() == [bool(word) for word in words[1:]]
