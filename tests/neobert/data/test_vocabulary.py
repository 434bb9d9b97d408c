"""A tokenizer that cannot be what it was is refused with what is missing, or warned of with the key that decides."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from neobert.config import ConfigError
from neobert.data import vocabulary
from neobert.data.text.tokenizer import load_tokenizer
from neobert.data.vocabulary import missing_packages, warn_of_lost_entries

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CASED = [*SPECIAL, "Paris", "##S", "École", "\u00fcber", "is", "nice", "##s", "the", "film"]


def bert(directory: Path, words: list[str], **settings: Any) -> Path:
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def told(caplog: pytest.LogCaptureFixture, source: str, tokenizer: PreTrainedTokenizerBase) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_lost_entries(source, tokenizer)
        warn_of_lost_entries(source, tokenizer)
    assert len(caplog.messages) <= 1
    return "".join(caplog.messages)


def test_a_cased_vocabulary_that_is_read_as_one_of_lower_case_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(bert(tmp_path, CASED))
    assert load_tokenizer(source).tokenize("Paris") == ["[UNK]"]
    assert f"44 % of the vocabulary of {source} (Paris, École, \u00fcber, S, ...) can never come out" in caplog.text
    assert 'which lower-cases texts first. If they are meant to, put "do_lower_case": false into its' in caplog.text
    bert(tmp_path, CASED, do_lower_case=False)
    assert told(caplog, source, load_tokenizer(source)) == ""


def test_accents_that_are_stripped_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [word for word in CASED if word == word.lower() or word in SPECIAL]
    tokenizer = load_tokenizer(str(bert(tmp_path, words)))
    assert 'which strips accents first. If they are meant to, put "strip_accents": false into its' in caplog.text
    bert(tmp_path, words, strip_accents=False)
    assert told(caplog, str(tmp_path), load_tokenizer(str(tmp_path))) == ""
    assert tokenizer.tokenize("\u00fcber") == ["[UNK]"]


LLAMAS = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


@pytest.mark.parametrize(
    ("model", "trainer", "pre", "normalizer"),
    [
        (models.BPE, trainers.BpeTrainer, pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
        (models.BPE, trainers.BpeTrainer, pre_tokenizers.Split("▁", "merged_with_next"), LLAMAS),
        (models.BPE, trainers.BpeTrainer, pre_tokenizers.Metaspace(),
         normalizers.Sequence([normalizers.Replace("▁", " "), normalizers.Strip()])),
        (models.WordPiece, trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()),
    ],
)  # fmt: skip
def test_a_vocabulary_that_was_learned_from_what_the_tokenizer_sees_has_nothing_lost(
    caplog: pytest.LogCaptureFixture, model: Any, trainer: Any, pre: Any, normalizer: Any
) -> None:
    backend = Tokenizer(model())
    backend.normalizer, backend.pre_tokenizer = normalizer, pre
    texts = ["A café in Paris, \u4e2d\u6587 and \u00fcber  all", "Ġ is a letter, and so is ▁ for some"] * 9
    backend.train_from_iterator(texts, trainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False))
    assert told(caplog, "learned", PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")) == ""


def test_the_uncased_vocabulary_of_bert_has_nothing_lost(minilm: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, "MiniLM", transformers.AutoTokenizer.from_pretrained(minilm)) == ""


@pytest.mark.parametrize("name", ["spm.model", "spiece.model", "sentencepiece.bpe.model"])
def test_a_sentencepiece_model_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    (tmp_path / name).write_bytes(b"\n\x10\n\x05[PAD]")
    monkeypatch.setattr(vocabulary, "PACKAGES", {"sentencepiece": "no_such_module", "protobuf": "no_such.module"})
    expected = (
        f"'{tmp_path}' has its tokenizer as a sentencepiece model ({name}), which cannot be read without the package "
        "sentencepiece and protobuf: run `pip install -c constraints.txt -e '.[train]'` in the checkout"
    )
    assert missing_packages(str(tmp_path)) == expected
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(str(tmp_path))
    assert str(caught.value) == f"tokenizer.name_or_path: {expected}"
    (tmp_path / "tokenizer.json").write_text("{}")
    assert missing_packages(str(tmp_path)) is None, "the model is not needed any more"
    assert missing_packages("some/name") is None
    assert missing_packages("some/name", "`tiktoken` is required to read a `tiktoken` file") == expected.replace(
        str(tmp_path), "some/name"
    ).replace(name, "*.model")
