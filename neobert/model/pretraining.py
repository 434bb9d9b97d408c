"""The model of a pretraining: new, or one that exists, under a head for masked words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from neobert.config import ConfigError
from neobert.config.pretrain import EncoderConfig
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM, verify

log = logging.getLogger(__name__)


def build_model(
    config: EncoderConfig, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, checkpoint: Path | None
) -> NeoBERTForMaskedLM:
    """The model of `checkpoint` when resuming, otherwise what the settings name or describe.

    Raises `ConfigError` when model, tokenizer and the length of sequences do not go together.
    """
    if checkpoint is None and config.name_or_path is None:
        model = NeoBERTForMaskedLM(_shape(config, tokenizer))
    else:
        model = _load(str(checkpoint or config.name_or_path), config)
    model.model.attn_backend = config.attn_backend
    entries, embeddings = len(tokenizer), model.config.vocab_size
    if entries > embeddings:
        raise ConfigError.at(("tokenizer",), f"has {entries} entries, but the model only {embeddings} embeddings")
    limit = model.config.max_position_embeddings
    if max_seq_length > limit:
        message = f"is {max_seq_length}, but the model takes at most {limit} (model.max_position_embeddings sets more)"
        raise ConfigError.at(("dataset", "max_seq_length"), message)
    return model


def _shape(config: EncoderConfig, tokenizer: PreTrainedTokenizerBase) -> NeoBERTConfig:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps", "rope_theta",
             "max_position_embeddings", "initializer_range", "tie_word_embeddings", "decoder_bias")  # fmt: skip
    sizes = {name: getattr(config, name) for name in names}
    stretched = _rope(config, config.max_position_embeddings, config.rope_theta)
    return NeoBERTConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes, **stretched)


def _load(source: str, config: EncoderConfig) -> NeoBERTForMaskedLM:
    try:
        options: dict[str, Any] = {"revision": config.revision} if source == config.name_or_path else {}
        shape = AutoConfig.from_pretrained(source, **options)
        if not isinstance(shape, NeoBERTConfig):
            raise ConfigError(f"{source!r} is a {shape.model_type}, and only NeoBERT models are pretrained here")
        before, theta = shape.max_position_embeddings, shape.rope_theta
        longer = {name: getattr(config, name) for name in ("max_position_embeddings", "rope_theta")
                  if name in config.model_fields_set}  # fmt: skip
        shape.update(longer | _rope(config, before, longer.get("rope_theta", theta)))
        model, info = NeoBERTForMaskedLM.from_pretrained(
            source, config=shape, output_loading_info=True, dtype=torch.float32, **options
        )
    except ConfigError as error:
        raise error.located(lambda path: "", lambda path: ("model", "name_or_path")) from None
    except Exception as error:  # noqa: BLE001  # OSError, ValueError, KeyError, SafetensorError, the hub's own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError.at(
            ("model", "name_or_path"), f"{source!r}: no model can be loaded from it: {first}"
        ) from None
    verify.check_weights(source, model, info)
    if info["missing_keys"]:
        log.info("new weights: %s", ", ".join(sorted(info["missing_keys"])))
    return model


def _rope(config: EncoderConfig, trained_on: int, theta: float) -> dict[str, Any]:
    if config.rope_scaling is None:
        return {}
    said = config.rope_scaling.model_dump(exclude_none=True)
    return {"rope_parameters": {"original_max_position_embeddings": trained_on, "rope_theta": theta, **said}}
