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
from neobert.training import checkpoints
from neobert.training.embeddings import NAME, save_rows_in_use, train_rows_in_use
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


def test_it_goes_on_with_the_rows_of_a_checkpoint_that_does_not_name_them(tmp_path: Path) -> None:
    """Older versions trained the rows of the texts, whatever the weight decay, and wrote no list of them."""
    model = bert()
    train_rows_in_use(model, IDS, pays=True, checkpoint=None)
    save_moments(model, tmp_path)
    again = bert()
    assert train_rows_in_use(again, IDS[1:], pays=False, checkpoint=tmp_path), "padding, 0, is one of them anyway"
    rows = again.get_input_embeddings()
    assert isinstance(rows, UsedRows) and rows.used.tolist() == IDS.tolist()
    (tmp_path / "all").mkdir()
    save_moments(bert(), tmp_path / "all")
    assert not train_rows_in_use(bert(), IDS, pays=True, checkpoint=tmp_path / "all")


def save_moments(model: torch.nn.Module, directory: Path) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.save(optimizer.state_dict(), directory / "optimizer.pt")


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


def test_moments_of_other_weights_are_refused(
    neobert: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fused optimizer would write beyond them: the process was killed, or other numbers were changed."""
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 0
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-16")
    (tmp_path / "result.json").unlink()
    checkpoint = tmp_path / "checkpoints" / "checkpoint-8"
    state = torch.load(checkpoint / "optimizer.pt")
    last = state["state"][max(state["state"])]
    last["exp_avg"] = torch.zeros(1)
    torch.save(state, checkpoint / "optimizer.pt")
    checkpoints.mark(checkpoint)
    assert neobert("glue", *SETTINGS, "--output-dir", tmp_path) == 1
    assert f"the optimizer's state in {checkpoint} is that of another model" in capsys.readouterr().err
