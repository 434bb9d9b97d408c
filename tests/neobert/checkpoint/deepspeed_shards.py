"""Writes checkpoints with DeepSpeed itself, of a NeoBERT at every stage of ZeRO and of a BERT, in a process of its own.

python -m tests.neobert.checkpoint.deepspeed_shards DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

from neobert.training import deepspeed
from tests.neobert.checkpoint.models import made


def bert() -> transformers.BertForMaskedLM:
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=320, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def save(root: Path, stage: int, model: torch.nn.Module) -> None:
    """After a step of training; expected.pt beside the shards holds the weights, where they are whole (not stage 3)."""
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
    settings["zero_allow_untested_optimizer"] = True
    deepspeed.start(settings, on_cpu=True)
    deepspeed.join_alone(on_cpu=True)
    import deepspeed as library

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = library.initialize(model=model, optimizer=optimizer, config=settings)
    ids = torch.arange(1, 9)[None]
    engine.backward(engine(ids, labels=ids).loss)
    engine.step()
    engine.save_checkpoint(str(root), tag="700")
    if stage < 3:
        torch.save(engine.module.state_dict(), root / "expected.pt")


if __name__ == "__main__":
    for number in range(4):
        save(Path(sys.argv[1]) / f"stage-{number}", number, made())
    for number in (2, 3):
        save(Path(sys.argv[1]) / f"bert-{number}", number, bert())
