"""A model that a pretraining cannot begin from is told, with its file and the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.config.pretrain import EncoderConfig
from neobert.data.tokenizing import train_wordpiece
from neobert.model.pretraining import build_model
from tests.neobert.checkpoint.models import made


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"cut off", "model.safetensors cannot be read: it is cut short or damaged"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        ("config.json", {"num_attention_heads": 5}, "hidden_size 24 is no multiple of 2 x num_attention_heads 5"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told_with_the_reason(
    tmp_path: Path, name: str, content: bytes | dict[str, int], message: str
) -> None:
    made().save_pretrained(tmp_path)
    if isinstance(content, dict):
        content = json.dumps(json.loads((tmp_path / name).read_text()) | content).encode()
    (tmp_path / name).write_bytes(content)
    tokenizer = train_wordpiece([("a text",)], 64, 32)
    with pytest.raises(ConfigError, match=f"^model.name_or_path: .*no model can be loaded from it: .*{message}"):
        build_model(EncoderConfig(name_or_path=str(tmp_path)), tokenizer, 16, None)
