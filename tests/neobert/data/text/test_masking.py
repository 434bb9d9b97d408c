"""What is masked, and that it is the same however the tokens come."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from neobert.data.text.masking import IGNORED, Masking, masking
from neobert.data.text.words import word_marks
from neobert.data.tokenizing import train_wordpiece

SPECIAL = 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    words = [(f"unbelievable wording {n} preprocessing rewording unworded",) for n in range(50)]
    return train_wordpiece(words, 120, 64)


def of(tokenizer: PreTrainedTokenizerBase, **options: object) -> Masking:
    return masking(tokenizer, **{"probability": 0.3, **options})


def piece(tokenizer: PreTrainedTokenizerBase, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(SPECIAL, len(tokenizer), length)


def test_shares_are_those_of_bert(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = piece(tokenizer, 200_000)
    seen, labels = of(tokenizer)(ids, [len(ids)], [7])
    chosen = labels != IGNORED
    assert abs(chosen.mean() - 0.3) < 0.005
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(seen[~chosen], ids[~chosen])
    masked = seen[chosen] == tokenizer.mask_token_id
    kept = seen[chosen] == ids[chosen]
    assert abs(masked.mean() - 0.8) < 0.01
    assert abs(kept.mean() - 0.1) < 0.01
    assert seen[chosen][~masked].min() >= SPECIAL, "no special token in another's place"
    seen, _ = of(tokenizer, mask_all=True)(ids, [len(ids)], [7])
    assert (seen[chosen] == tokenizer.mask_token_id).all()


def test_it_depends_on_the_piece_and_the_place_in_it_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    one, other = piece(tokenizer, 40), piece(tokenizer, 25, 1)
    mask = of(tokenizer)
    apart = [mask(one, [40], [1]), mask(other, [25], [2])]
    together = mask(np.concatenate([other, one]), [25, 40], [2, 1])
    for alone, packed in zip(zip(*apart, strict=True), together, strict=True):
        assert np.array_equal(np.concatenate([alone[1], alone[0]]), packed)
    assert not np.array_equal(mask(one, [40], [1])[1], mask(one, [40], [3])[1]), "another epoch masks others"


def test_special_tokens_are_never_masked(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = np.tile([tokenizer.cls_token_id, 9, tokenizer.sep_token_id], 1000)
    _, labels = of(tokenizer, probability=1.0)(ids, [len(ids)], [1])
    assert np.array_equal(labels != IGNORED, ids == 9)


@pytest.mark.parametrize("probability", [0.15, 0.5])
def test_words_are_masked_as_a_whole(tokenizer: PreTrainedTokenizerBase, probability: float) -> None:
    texts = ["unword prebelievable processing reworded"] * 300
    ids = [np.array(each) for each in tokenizer(texts)["input_ids"]]
    mask = of(tokenizer, probability=probability, whole_words=True)
    _, labels = mask(np.concatenate(ids), list(map(len, ids)), list(range(300)))
    goes_on = ~word_marks(tokenizer).begins[np.concatenate(ids)]
    assert goes_on.mean() > 0.4
    chosen = labels != IGNORED
    assert np.array_equal(chosen[1:][goes_on[1:]], chosen[:-1][goes_on[1:]]), "what goes on shares its word's fate"
    ordinary = np.concatenate(ids) >= SPECIAL
    assert abs(chosen[ordinary].mean() - probability) < 0.05


def test_a_text_with_the_marks_of_other_tokenizers_is_masked_in_part() -> None:
    """All of a piece as one word would be masked in whole or not at all."""
    texts = [f"unbelievable wording {n} ▁▂▃ preprocessing rewording unworded" for n in range(50)]
    tokenizer = train_wordpiece([(text,) for text in texts], 1500, 64)
    ids = [np.array(each) for each in tokenizer(texts)["input_ids"]]
    _, labels = of(tokenizer, whole_words=True)(np.concatenate(ids), list(map(len, ids)), list(range(50)))
    shares = [(part != IGNORED).mean() for part in np.split(labels, np.cumsum(list(map(len, ids)))[:-1])]
    assert np.mean([0 < share < 0.7 for share in shares]) > 0.7


def test_without_a_mask_token_it_is_refused() -> None:
    class Other:
        mask_token_id = None

    with pytest.raises(ValueError, match="no mask token"):
        masking(Other(), 0.2)
