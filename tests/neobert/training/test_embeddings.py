"""A training goes on with the rows of embeddings that it began with, and with no others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from neobert.errors import RunError
from neobert.model.used_rows import UsedRows
from neobert.training.embeddings import NAME, save_rows_in_use, train_rows_in_use
from neobert.training.trainer import check_moments
from tests.neobert.conftest import TINY, as_if_trained

SIZE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
IDS = np.array([0, 2, 7, 9])


def bert() -> transformers.BertForSequenceClassification:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZE))


def test_it_goes_on_with_the_rows_of_the_checkpoint(tmp_path: Path) -> None:
    model = bert()
    assert train_rows_in_use(model, IDS, pays=True, checkpoint=None)
    save_rows_in_use(model, tmp_path)
    again = bert()
    assert train_rows_in_use(again, IDS[:3], pays=False, checkpoint=tmp_path)
    rows = again.get_input_embeddings()
    assert isinstance(rows, UsedRows) and rows.used.tolist() == IDS.tolist()
    with pytest.raises(RunError, match="trained with other embeddings or tokens"):
        train_rows_in_use(bert(), np.array([0, 2, 8]), pays=True, checkpoint=tmp_path)
    assert not train_rows_in_use(bert(), IDS, pays=False, checkpoint=None)
    (tmp_path / NAME).write_bytes(b"no array")
    with pytest.raises(RunError, match=rf"{NAME} is damaged: .* Remove {tmp_path}, to go on from the one before it"):
        train_rows_in_use(bert(), IDS, pays=True, checkpoint=tmp_path)


def test_a_checkpoint_that_has_all_rows_keeps_them(tmp_path: Path) -> None:
    model = bert()
    save_rows_in_use(model, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert not train_rows_in_use(model, IDS, pays=True, checkpoint=tmp_path)
    assert not isinstance(model.get_input_embeddings(), UsedRows)


SETTINGS = [*TINY, "task_name=rte", "data.generated=64", "optimizer.weight_decay=0", "trainer.num_train_epochs=2",
            "trainer.keep=all"]  # fmt: skip


def test_it_resumes_also_where_what_was_noted_of_the_data_is_lost(neobert: Callable[..., int], tmp_path: Path) -> None:
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    expected = (tmp_path / "checkpoints" / "checkpoint-16" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-16")
    (tmp_path / "result.json").unlink()
    (tmp_path / "checkpoints" / "data.json").unlink()
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    assert (tmp_path / "checkpoints" / "checkpoint-16" / "model.safetensors").read_bytes() == expected


def test_a_tokenizer_may_pad_with_another_token_than_the_model_says(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path
) -> None:
    model = as_if_trained(transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert, pad_token="[MASK]")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    settings = [word for word in SETTINGS if not word.startswith("model.")]
    out = tmp_path / "out"
    assert neobert("glue", *settings, f"model.name_or_path={tmp_path / 'model'}", "--output-dir", out) == 0


def test_a_checkpoint_without_a_list_is_of_the_rows_of_its_texts_where_an_earlier_version_noted_so(
    tmp_path: Path,
) -> None:
    model = bert()
    assert train_rows_in_use(model, IDS, pays=False, checkpoint=tmp_path, unlisted=True)
    rows = model.get_input_embeddings()
    assert isinstance(rows, UsedRows) and rows.used.tolist() == IDS.tolist()
    assert not train_rows_in_use(bert(), IDS, pays=True, checkpoint=tmp_path)


def test_moments_of_other_weights_are_refused() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 2))
    check_moments({weight: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(4, 2)}}, "checkpoint-3")
    with pytest.raises(RunError, match="the optimizer in checkpoint-3 is of other weights than this model trains"):
        check_moments({weight: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3, 2)}}, "checkpoint-3")
