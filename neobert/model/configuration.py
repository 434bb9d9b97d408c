"""The shape of a NeoBERT (https://arxiv.org/abs/2502.19587) as a Hugging Face configuration."""

from __future__ import annotations

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from neobert.config.parameters import gated_size

ROPE_TYPES = ("default", "linear", "yarn", "llama3")
"""Ways to stretch RoPE to longer sequences, as `transformers.modeling_rope_utils` has them."""

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")


@strict
class NeoBERTConfig(PreTrainedConfig):
    """Defaults are the published size; `intermediate_size` is the width before SwiGLU's factor of 2/3.

    `rope_parameters` holds RoPE's base, `rope_theta` (which may also be given by itself), and how it is stretched to
    longer sequences, in Hugging Face's words: `{rope_type: yarn, factor: 4.0, rope_theta: 10000.0,
    original_max_position_embeddings: 1024}`. `decoder_bias` and `tie_word_embeddings` are those of the head for masked
    words; published models have a matrix of its own there, with a bias. `classifier_pooling` is what the head for whole
    texts looks at: the first token (`cls`), as in the published code, or the `mean` of all.
    """

    model_type = "neobert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 28
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 1024
    norm_eps: float = 1e-5
    initializer_range: float = 0.02
    classifier_dropout: float = 0.1
    classifier_pooling: Literal["cls", "mean"] = "cls"
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = False
    decoder_bias: bool = True
    rope_parameters: dict[str, Any] | None = None

    default_theta = 10000.0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Also takes the published configurations, which call `max_position_embeddings` by another name."""
        if "max_length" in config_dict:
            config_dict = {"max_position_embeddings": config_dict["max_length"], **config_dict}
        return super().from_dict(config_dict, **kwargs)

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def gated_size(self) -> int:
        """Width of each of SwiGLU's two branches."""
        return gated_size(self.intermediate_size)

    def validate_architecture(self) -> None:
        """Called by Hugging Face on construction."""
        kind = (self.rope_parameters or {}).get("rope_type", "default")
        if kind not in ROPE_TYPES:
            raise ValueError(f"rope_parameters: rope_type {kind!r} is none of {', '.join(ROPE_TYPES)}")
        for name in ("vocab_size", *_SIZES):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size!r}; expected a whole number above 0")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id is {self.pad_token_id}, and there are {self.vocab_size} embeddings")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of 2 x num_attention_heads {self.num_attention_heads} "
                "(RoPE rotates pairs)"
            )
