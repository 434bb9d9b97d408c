"""Models that come with a sentencepiece model in the place of a tokenizer.json, as DeBERTa-v3 is published."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from neobert.config import ConfigError
from neobert.config.extras import install
from neobert.data import vocabulary
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text.words import word_marks
from tests.neobert.conftest import as_if_trained
from tests.neobert.model.test_loading import build
from tests.skips import skip

DEBERTA = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
           "eos_piece": "[SEP]", "unk_piece": "[UNK]"}  # fmt: skip
SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def package() -> Any:
    if importlib.util.find_spec("sentencepiece") is None:
        skip(f"the package sentencepiece is missing: {install('train')}")
    import sentencepiece

    return sentencepiece


@pytest.fixture(scope="module")
def deberta(package: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of microsoft/deberta-v3-base: weights, config.json, tokenizer_config.json and spm.model."""
    path = tmp_path_factory.mktemp("deberta")
    texts = [text for pair in generated_splits(TASKS["mnli"], 200).train.texts for text in pair]
    model = io.BytesIO()
    package.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, "Another Text: with CAPITALS, and 12 numbers."]), model_writer=model,
        vocab_size=300, hard_vocab_limit=False, minloglevel=2, **DEBERTA,
    )  # fmt: skip
    (path / "spm.model").write_bytes(model.getvalue())
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    entries = package.SentencePieceProcessor(model_file=str(path / "spm.model")).vocab_size()
    shape = transformers.DebertaV2Config(vocab_size=entries + 1, pad_token_id=0, type_vocab_size=0, **SIZE)
    as_if_trained(transformers.DebertaV2Model(shape)).save_pretrained(path)
    return path


def test_a_tokenizer_of_spm_model_alone_makes_what_sentencepiece_makes(package: Any, deberta: Path) -> None:
    own = package.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    classifier = build(deberta)
    tokenizer = classifier.tokenizer
    texts = [text for pair in generated_splits(TASKS["mnli"], 50).train.texts for text in pair]
    texts += ["Another Text,  with CAPITALS: and 12 numbers.", "\u00fcber \u4e2d\u6587"]
    for text in texts:
        assert tokenizer(text)["input_ids"] == [1, *own.encode(text), 2]
    assert tokenizer("a", "b")["input_ids"] == [1, *own.encode("a"), 2, *own.encode("b"), 2]
    assert len(tokenizer) == own.vocab_size() + 1, "[MASK] comes behind all others"
    begins = word_marks(tokenizer).begins
    assert [begins[number] for number in own.encode("the film is")] == [
        piece.startswith("▁") for piece in own.encode("the film is", out_type=str)
    ]


def test_it_is_trained_on_and_saved_as_a_tokenizer_that_needs_no_package(
    deberta: Path, neobert: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["data.generated=16", "data.max_length=32", "data.max_eval_samples=8", "trainer.max_steps=2",
                "trainer.use_cpu=true", "trainer.keep=all", "task_name=rte",
                f"model.name_or_path={deberta}"]  # fmt: skip
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 0
    monkeypatch.setattr(vocabulary, "PACKAGES", {"sentencepiece": "no_such_module"})
    assert build(tmp_path / "checkpoints" / "checkpoint-2").tokenizer.get_vocab() == build_vocabulary(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^model.name_or_path: .* \(spm.model\), which cannot be read without the pa"
    ):
        build(deberta)


def build_vocabulary(trial: Path) -> dict[str, int]:
    saved = json.loads((trial / "checkpoints" / "checkpoint-2" / "tokenizer.json").read_text())
    entries = {piece: number for number, (piece, _) in enumerate(saved["model"]["vocab"])}
    return entries | {token["content"]: token["id"] for token in saved["added_tokens"]}
