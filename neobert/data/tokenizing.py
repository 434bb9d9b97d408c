"""From texts to batches of token ids, padded no further than the longest of each batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from neobert.data.examples import Examples, Texts

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ALPHABET = 1000
"""The commonest characters, which a trained tokenizer knows; a word with another one is unknown."""

CHUNK = 2000
"""Texts tokenised at a time: enough to keep the threads of the tokenizer busy, few enough to need little memory."""


def train_wordpiece(texts: Iterable[Texts], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer as BERT's, learned from `texts`; the same texts give the same tokenizer."""
    vocab = _learn_vocab([sentence for pair in texts for sentence in pair], vocab_size)
    tokenizer = _wordpiece(vocab)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=max_length, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _wordpiece(vocab: dict[str, int] | None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _learn_vocab(sentences: list[str], vocab_size: int) -> dict[str, int]:
    """The entries and their numbers, the same in every run.

    The library numbers the characters inside words in the order of a hash table, which changes from run to run, and
    decides between equally good merges by these numbers. So they are numbered beforehand, as if they were special.
    """
    learner = _wordpiece(None)
    counts: Counter[str] = Counter()
    for text in sentences:
        counts.update(learner.normalizer.normalize_str(text))
    del counts[" "]
    room = min(ALPHABET, (vocab_size - len(SPECIAL)) // 2)
    alphabet = sorted(counts, key=lambda char: (-counts[char], char))[:room]
    special = [*SPECIAL, *sorted(alphabet), *(f"##{char}" for char in sorted(alphabet))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=False,
        initial_alphabet=alphabet, limit_alphabet=len(alphabet),
    )  # fmt: skip
    learner.train_from_iterator(sentences, trainer)
    return learner.get_vocab()


class Tokenized(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised examples, laid end to end in one array a column: small in memory and quick to index."""

    def __init__(self, columns: dict[str, np.ndarray], lengths: np.ndarray, labels: Sequence[float] | np.ndarray):
        self.columns = columns
        """All examples of each, end to end."""
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._labels = labels

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = slice(self._starts[index], self._ends[index])
        example: dict[str, Any] = {name: column[row] for name, column in self.columns.items()}
        if len(self._labels):
            example["labels"] = self._labels[index]
        return example

    def by_length(self) -> torch.utils.data.Dataset[dict[str, Any]]:
        """The same examples, shortest first."""
        return torch.utils.data.Subset(self, np.argsort(self.lengths, kind="stable").tolist())

    @property
    def lengths(self) -> np.ndarray:
        return self._ends - self._starts


def tokenize(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Sequence[str]
) -> Tokenized:
    """Cuts every example to `max_length` tokens (the longer sentence of a pair first); keeps the given columns."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns if name != "attention_mask"}
    lengths: list[np.ndarray] = []
    for texts in _chunks(examples.texts):
        encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, max_length=max_length)
        lengths.append(np.fromiter(map(len, encoded["input_ids"]), np.int64, len(texts)))
        for name, part in parts.items():
            part.append(np.concatenate([np.asarray(ids, np.int32) for ids in encoded[name]]))
    return Tokenized({k: np.concatenate(v) for k, v in parts.items()}, np.concatenate(lengths), examples.labels)


def _chunks(texts: list[Texts]) -> Iterator[list[Texts]]:
    for start in range(0, len(texts), CHUNK):
        yield texts[start : start + CHUNK]


class Collator:
    """Makes a batch of examples: ids and type ids padded, with the mask that says so.

    On the tokenizer's side, unless that is the left and the model does not take it there. `tokens` is how many of them
    are no padding, on the host.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, regression: bool, may_left: bool = True):
        self.left = may_left and tokenizer.padding_side == "left"
        self.padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self.label_type = torch.float32 if regression else torch.int64

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        width = int(lengths.max())
        places = torch.arange(width - 1, -1, -1) if self.left else torch.arange(width)
        batch: dict[str, Any] = {"attention_mask": (places < lengths[:, None]).long(), "tokens": int(lengths.sum())}
        for name in examples[0].keys() - {"labels"}:
            padded = torch.full((len(examples), width), self.padding[name], dtype=torch.int64)
            for row, example in zip(padded, examples, strict=True):
                start = width - len(example[name]) if self.left else 0
                row[start : start + len(example[name])] = torch.from_numpy(example[name])
            batch[name] = padded
        if "labels" in examples[0]:
            batch["labels"] = torch.tensor([example["labels"] for example in examples], dtype=self.label_type)
        return batch
