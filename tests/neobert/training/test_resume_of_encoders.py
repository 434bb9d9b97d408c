"""Encoders of all kinds that are interrupted and resumed end bit for bit like those that were left alone.

Batches of a single text are where it shows that weights come from another file: `neobert.model.alignment`. BigBird
changes itself when it computes its first batch: `neobert.model.settling`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from neobert.training.preemption import Preemption
from tests.neobert.conftest import as_if_trained

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
        "max_position_embeddings": 64}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": {**SIZE, "intermediate_size": 32},
    "convbert": {**SIZE, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 2},
    "squeezebert": {**SIZE, "embedding_size": 16},
    "fnet": {**SIZE, "type_vocab_size": 2},
    "nystromformer": {**SIZE, "num_landmarks": 4, "segment_means_seq_len": 4},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "max_position_embeddings": 64},
    **dict.fromkeys(
        ("roberta", "electra", "albert", "deberta", "deberta-v2", "mpnet", "modernbert", "roformer",
         "megatron-bert", "big_bird", "longformer", "eurobert"), SIZE
    ),
}  # fmt: skip
QUICK = ("bert", "convbert", "big_bird")
SETTINGS = ["task_name=rte", "data.generated=33", "data.max_length=32", "data.max_eval_samples=9", "optimizer.lr=1e-3",
            "trainer.num_train_epochs=2", "trainer.per_device_train_batch_size=8", "trainer.use_cpu=true",
            "model.allow_random_weights=true", "trainer.keep=all"]  # fmt: skip
STEPS = 10  # 5 an epoch, the last of which has one example


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_resumed_encoder_ends_bit_for_bit_like_an_undisturbed_one(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    shape = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **KINDS[kind]
    )
    torch.manual_seed(0)
    as_if_trained(transformers.AutoModelForMaskedLM.from_config(shape)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = ["glue", *SETTINGS, f"model.name_or_path={tmp_path / 'model'}", "--output-dir"]
    assert neobert(*command, tmp_path / "undisturbed") == 0
    stops = iter([False] * 3 + [True] * 2)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "agreed", lambda self: next(stops))
        assert neobert(*command, tmp_path / "resumed") == 85
    assert neobert(*command, tmp_path / "resumed") == 0
    expected, found = (
        load_file(tmp_path / name / f"checkpoints/checkpoint-{STEPS}/model.safetensors")
        for name in ("undisturbed", "resumed")
    )
    differing = [name for name, weight in expected.items() if not torch.equal(found[name], weight)]
    assert differing == []
