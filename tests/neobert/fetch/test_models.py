"""Of a model's repository, what PyTorch and its tokenizer are loaded from, and nothing else."""

from __future__ import annotations

import pytest

from neobert.fetch.models import files_to_load

BERT = [
    ".gitattributes", "README.md", "config.json", "flax_model.msgpack", "model.onnx", "model.safetensors",
    "pytorch_model.bin", "rust_model.ot", "tf_model.h5", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "coreml/model.mlpackage/Manifest.json", "onnx/config.json", "onnx/model.onnx",
]  # fmt: skip


def test_one_format_of_the_weights_and_the_texts_beside_them() -> None:
    assert files_to_load(BERT) == (
        ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"],
        ["model.safetensors"],
    )


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
         ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]),
        (["adapter_model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin", "adapter_model.safetensors"]),
        (["2_Dense/model.safetensors", "model.safetensors", "onnx/model.safetensors", "model.fp16.safetensors"],
         ["model.safetensors", "2_Dense/model.safetensors"]),
        (["consolidated.00.pth", "training_args.bin", "optimizer.pt"], []),
    ],
)  # fmt: skip
def test_weights(files: list[str], weights: list[str]) -> None:
    assert files_to_load(files) == ([], weights)


def test_code_and_every_kind_of_vocabulary() -> None:
    texts = ["1_Pooling/config.json", "bpe.codes", "chat_template.jinja", "lib/layers.py", "merges.txt", "model.py",
             "modules.json", "source.spm", "spiece.model"]  # fmt: skip
    assert sorted(files_to_load([*texts, "lib/notes.txt", "figure.png"])[0]) == texts
