"""Tokenizers are reproducible; batches hold every token, and padding no further than needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from neobert.data.examples import Examples
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.tokenizing import CHUNK, Collator, tokenize, train_wordpiece
from tests.neobert.conftest import REPOSITORY

PAIRS = Examples([("A cat sat", "on mats"), ("dogs", "ran"), ("a", "b c d e f g h")], [1, 0, 1])
TOKENIZER = train_wordpiece(PAIRS.texts, 100, 64)
COLUMNS = TOKENIZER.model_input_names


def vocabulary() -> str:
    vocab = train_wordpiece(generated_splits(TASKS["qnli"], 400).train.texts, 150, 64).get_vocab()
    return hashlib.sha256(repr(sorted(vocab.items())).encode()).hexdigest()


def test_the_same_texts_give_the_same_tokenizer_in_every_process() -> None:
    """The library's own numbering differs from process to process, because it follows a hash table."""
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\nfrom {__name__} import vocabulary\nprint(vocabulary())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as other:
        assert other.communicate()[0].strip() == vocabulary()
    assert len({vocabulary() for _ in range(5)}) == 1


def test_a_vocabulary_is_no_larger_than_asked_for_and_numbered_without_gaps() -> None:
    texts = generated_splits(TASKS["qnli"], 400).train.texts
    for size in (64, 100, 150):
        vocab = train_wordpiece(texts, size, 64).get_vocab()
        assert len(vocab) <= size
        assert sorted(vocab.values()) == list(range(len(vocab)))
    assert [vocab[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]


def test_text_is_lower_cased_and_framed() -> None:
    assert TOKENIZER.decode(TOKENIZER("A CAT sat", "On mats")["input_ids"]) == "[CLS] a cat sat [SEP] on mats [SEP]"
    assert TOKENIZER("Ω")["input_ids"] == [2, 1, 3]


def test_a_batch_is_as_wide_as_its_longest_example_and_masks_the_rest() -> None:
    data = tokenize(PAIRS, TOKENIZER, 64, COLUMNS)
    batch = Collator(TOKENIZER, regression=False)([data[0], data[1]])
    lengths = [len(TOKENIZER(*texts)["input_ids"]) for texts in PAIRS.texts]
    assert batch["input_ids"].shape == (2, max(lengths[:2]))
    assert batch["attention_mask"].sum(1).tolist() == lengths[:2]
    assert batch["tokens"] == sum(lengths[:2])
    for row, texts in zip(range(2), PAIRS.texts, strict=False):
        tokens = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        assert tokens.tolist() == TOKENIZER(*texts)["input_ids"]
        assert (batch["input_ids"][row][~batch["attention_mask"][row].bool()] == TOKENIZER.pad_token_id).all()
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.int64


def test_padding_stands_on_the_side_that_the_tokenizer_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tokenize(PAIRS, TOKENIZER, 64, COLUMNS)
    monkeypatch.setattr(TOKENIZER, "padding_side", "left")
    batch = Collator(TOKENIZER, regression=False)([data[0], data[1]])
    short = data[1]["input_ids"].tolist()
    padding = batch["input_ids"].shape[1] - len(short)
    assert padding > 0
    assert batch["input_ids"][1].tolist() == [TOKENIZER.pad_token_id] * padding + short
    assert batch["attention_mask"].tolist() == [[1] * (padding + len(short)), [0] * padding + [1] * len(short)]
    right = Collator(TOKENIZER, regression=False, may_left=False)([data[0], data[1]])
    assert right["input_ids"][1].tolist() == short + [TOKENIZER.pad_token_id] * padding


def test_regression_labels_stay_floats() -> None:
    data = tokenize(Examples([("a",), ("b",)], [0.25, 4.0]), TOKENIZER, 64, COLUMNS)
    labels = Collator(TOKENIZER, regression=True)([data[0], data[1]])["labels"]
    assert (labels.tolist(), labels.dtype) == ([0.25, 4.0], torch.float32)


def test_long_pairs_lose_the_end_of_the_longer_sentence() -> None:
    data = tokenize(PAIRS, TOKENIZER, 8, COLUMNS)
    assert data.lengths.max() == 8
    kept = TOKENIZER.decode(data[2]["input_ids"])
    assert kept == "[CLS] a [SEP] b c d e [SEP]"


def test_token_types_are_kept_for_models_that_take_them() -> None:
    tokenizer = train_wordpiece(PAIRS.texts, 100, 64)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    example = tokenize(PAIRS, tokenizer, 64, tokenizer.model_input_names)[1]
    assert set(example) == {"input_ids", "token_type_ids", "labels"}
    assert "token_type_ids" in Collator(tokenizer, regression=False)([example])


def test_more_rows_than_a_chunk_keep_their_order() -> None:
    rows = Examples([(letter * (1 + i % 3),) for i, letter in zip(range(CHUNK + 5), "abc" * CHUNK, strict=False)],
                    list(range(CHUNK + 5)))  # fmt: skip
    data = tokenize(rows, TOKENIZER, 64, COLUMNS)
    assert len(data) == CHUNK + 5
    for index in (0, 1, CHUNK - 1, CHUNK, CHUNK + 4):
        assert data[index]["labels"] == index
        assert data[index]["input_ids"].tolist() == TOKENIZER(*rows.texts[index])["input_ids"]


def test_sorting_by_length_keeps_every_example_whole() -> None:
    data = tokenize(PAIRS, TOKENIZER, 64, COLUMNS)
    ordered = data.by_length()
    lengths = [len(ordered[index]["input_ids"]) for index in range(3)]
    assert lengths == sorted(data.lengths.tolist())
    found = {(tuple(ordered[index]["input_ids"]), ordered[index]["labels"]) for index in range(3)}
    assert found == {(tuple(data[index]["input_ids"]), data[index]["labels"]) for index in range(3)}
    assert isinstance(data.lengths, np.ndarray)
