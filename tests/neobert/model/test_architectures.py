"""Encoders (and decoders) of every kind that transformers has a classifier of: trained on, or refused before training.

Tiny models with random weights, and BERT's tokenizer, which gives token types to models that have none. The kinds that
take ways of their own through the code are tried each time, the others with the slow tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedTokenizerBase

from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.tokenizing import train_wordpiece

LENGTH = 32
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": LENGTH}  # fmt: skip
ROBERTA = {**BERT, "type_vocab_size": 1, "max_position_embeddings": LENGTH + 1}
DEBERTA = {**BERT, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
DECODER = {**BERT, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
XLM = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": LENGTH}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": LENGTH, "eos_token_id": 3}  # fmt: skip
LIGHT: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": LENGTH},
    "ibert": {**ROBERTA, "quant_mode": False},
    "deberta-v2": {**DEBERTA, "position_biased_input": False, "share_att_key": True, "position_buckets": 16,
                   "norm_rel_ebd": "layer_norm"},
    "gpt2": GPT,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "albert": {**BERT, "embedding_size": 8},
    "bart": BART,
    "big_bird": {**BERT, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "camembert": ROBERTA,
    "canine": {**BERT, "local_transformer_stride": 16, "num_hash_buckets": 64},
    "convbert": {**BERT, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 2},
    "ctrl": {**GPT, "dff": 32},
    "data2vec-text": ROBERTA,
    "deberta": DEBERTA,
    "electra": {**BERT, "embedding_size": 8},
    "ernie": BERT,
    "esm": {**ROBERTA, "position_embedding_type": "rotary"},
    "eurobert": DECODER,
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": False},
    "flaubert": XLM,
    "fnet": {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "type_vocab_size": 4},
    "funnel": {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1]},
    "gemma": DECODER,
    "gpt_neo": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": LENGTH,
                "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_neox": BERT,
    "gptj": {**GPT, "rotary_dim": 4},
    "layoutlm": BERT,
    "layoutlmv3": {**ROBERTA, "coordinate_size": 2, "shape_size": 4},
    "llama": DECODER,
    "longformer": {**ROBERTA, "type_vocab_size": 2, "attention_window": [8, 8]},
    "luke": {**ROBERTA, "type_vocab_size": 2, "entity_emb_size": 8},
    "markuplm": {**ROBERTA, "type_vocab_size": 2},
    "mbart": BART,
    "megatron-bert": BERT,
    "mistral": DECODER,
    "mobilebert": {**BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {**BERT, "global_attn_every_n_layers": 2, "local_attention": 8},
    "modernbert-decoder": {**BERT, "local_attention": 8},
    "mpnet": {**BERT, "max_position_embeddings": LENGTH + 2},
    "mra": {**BERT, "block_per_row": 1, "type_vocab_size": 1},
    "nomic_bert": BERT,
    "nystromformer": {**BERT, "num_landmarks": 4, "segment_means_seq_len": 4},
    "openai-gpt": GPT,
    "opt": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32,
            "max_position_embeddings": LENGTH, "word_embed_proj_dim": 16},
    "phi": DECODER,
    "qwen3": DECODER,
    "rembert": {**BERT, "input_embedding_size": 8, "output_embedding_size": 8},
    "roberta-prelayernorm": ROBERTA,
    "roc_bert": {**BERT, "enable_pronunciation": False, "enable_shape": False, "concat_input": False},
    "roformer": {**BERT, "embedding_size": 16},
    "squeezebert": {**BERT, "embedding_size": 16, "q_groups": 1, "k_groups": 1, "v_groups": 1,
                    "post_attention_groups": 1, "intermediate_groups": 1, "output_groups": 1},
    "stablelm": DECODER,
    "xlm": XLM,
    "xlm-roberta": ROBERTA,
    "xlm-roberta-xl": ROBERTA,
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "xmod": {**ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {**BERT, "type_vocab_size": 1},
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bigbird_pegasus": ({**BART, "block_size": 4, "num_random_blocks": 1, "eos_token_id": 200},
                        "Each example must contain at least one <eos> token"),
    "tapas": (BERT, "too many indices for tensor of dimension 2"),
    "reformer": ({"attention_head_size": 8, "hidden_size": 16, "num_attention_heads": 2, "feed_forward_size": 32,
                  "attn_layers": ["local"], "axial_pos_embds": False, "local_attn_chunk_length": 8,
                  "max_position_embeddings": LENGTH}, "has to be a multiple of least common multiple chunk_length 8"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """BERT's, which tells the two texts of a pair apart by token types."""
    learned = train_wordpiece(generated_splits(TASKS["rte"], 200).train.texts, 300, LENGTH)
    return transformers.BertTokenizer(vocab=learned.get_vocab(), model_max_length=LENGTH)


def save(kind: str, shape: dict[str, Any], tokenizer: PreTrainedTokenizerBase, path: Path) -> Path:
    words = {} if kind == "canine" else {"vocab_size": len(tokenizer)}
    config = transformers.AutoConfig.for_model(kind, **{"pad_token_id": 0, **shape, **words})
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for module in model.modules():
            if "norm" in type(module).__name__.lower():  # as after a training
                for weight in module.parameters(recurse=False):
                    weight.add_(torch.randn_like(weight) / 50)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def words(model: Path, task: str) -> list[str]:
    return ["glue", f"model.name_or_path={model}", f"task_name={task}", "data.generated=16",
            f"data.max_length={LENGTH}",
            "data.max_eval_samples=8", "trainer.max_steps=2", "trainer.per_device_train_batch_size=4",
            "trainer.use_cpu=true"]  # fmt: skip


@pytest.mark.parametrize("kind", [*LIGHT, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_it_is_trained_on_single_texts_and_on_pairs(
    neobert: Callable[..., int], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kind: str
) -> None:
    model = save(kind, (LIGHT | OTHERS)[kind], tokenizer, tmp_path / "model")
    for task in ("sst2", "rte"):
        assert neobert(*words(model, task), "--output-dir", tmp_path / task) == 0
        result = json.loads((tmp_path / task / "result.json").read_text())
        assert result["steps"] == 2
        assert 0 < result["metrics"]["loss"] < 10


@pytest.mark.parametrize("kind", ["tapas", *(pytest.param(k, marks=pytest.mark.slow) for k in REFUSED if k != "tapas")])
def test_one_that_cannot_compute_the_texts_is_refused_before_training(
    neobert: Callable[..., int], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shape, reason = REFUSED[kind]
    model = save(kind, shape, tokenizer, tmp_path / "model")
    assert neobert(*words(model, "rte"), "--output-dir", tmp_path / "trial") == 2
    told = capfd.readouterr().err
    assert f"neobert: model.name_or_path: '{model}' cannot compute a text of " in told
    assert reason in told
    assert "Traceback" not in told
