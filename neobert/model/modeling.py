"""NeoBERT in PyTorch: pre-norm blocks of rotary attention and SwiGLU, without biases.

Modules are named as in the published chandar-lab/NeoBERT, so that its weights load name by name.

Within the encoder there is no padding: all tokens of a batch lie end to end, (tokens, hidden size), and `Segments` says
which belong together. Batches that come packed (`cu_seqlens`) are so already; of padded ones (`attention_mask`), the
tokens are taken out at the start and put back at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from neobert.model.attention import Segments, attention, choose
from neobert.model.configuration import NeoBERTConfig
from neobert.model.loss import linear_cross_entropy
from neobert.model.packing import Layout, packed_layout, padded_layout
from neobert.model.rotary import frequencies, rotate, rotation

IGNORED = -100
"""The label of tokens that are not to be guessed, as everywhere in Hugging Face's libraries."""


class SwiGLU(nn.Module):
    """silu(x W1) * (x W2) W3, with W1 and W2 in one matrix."""

    def __init__(self, config: NeoBERTConfig):
        super().__init__()
        self.w12 = nn.Linear(config.hidden_size, 2 * config.gated_size, bias=False)
        self.w3 = nn.Linear(config.gated_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        gate, up = self.w12(states).chunk(2, dim=-1)
        return self.w3(silu(gate) * up)


class EncoderBlock(GradientCheckpointingLayer):
    """Attention and feed-forward, each on normalised states and added to the stream."""

    compiled = False
    """Set by `compile_blocks`."""

    def __init__(self, config: NeoBERTConfig):
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.ffn = SwiGLU(config)
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.ffn_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, states: Tensor, segments: Segments, cos: Tensor, sin: Tensor, backend: str) -> Tensor:
        before, after = _compiled() if self.compiled else (EncoderBlock.before_attention, EncoderBlock.after_attention)
        query, key, value = before(self, states, cos, sin)
        output: Tensor = after(self, states, attention(query, key, value, segments, backend))
        return output

    def before_attention(self, states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (tokens, hidden size), each (tokens, heads, head size)."""
        # The published weights interleave q, k and v head by head: (heads, 3 x head size), not [Q; K; V].
        projected = self.qkv(self.attention_norm(states)).unflatten(-1, (self.heads, -1))
        query_key, value = projected.split((2 * self.head_size, self.head_size), dim=-1)
        # Both at once: (tokens, heads, 2, head size).
        turned = rotate(query_key.unflatten(-1, (2, -1)), cos.unsqueeze(-2), sin.unsqueeze(-2))
        query, key = turned.unbind(-2)
        return query, key, value

    def after_attention(self, states: Tensor, mixed: Tensor) -> Tensor:
        states = states + self.wo(mixed.flatten(-2))
        return states + self.ffn(self.ffn_norm(states))


@functools.cache
def _compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What a block computes on both sides of its attention: one code for all blocks and any number of tokens."""
    return (
        torch.compile(EncoderBlock.before_attention, dynamic=True),
        torch.compile(EncoderBlock.after_attention, dynamic=True),
    )


class NeoBERTPreTrainedModel(PreTrainedModel):
    config_class = NeoBERTConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["EncoderBlock"]

    attn_backend = "auto"
    """How the encoder computes attention: one of `neobert.model.attention.BACKENDS`. No property of the weights."""

    def compile_blocks(self) -> None:
        """Compiles what blocks compute on both sides of their attention: once, for all blocks and all batches.

        `torch.compile` of the whole model would take into the code what looks at the lengths of texts on the host, and
        compile anew for nearly every batch; with gradient checkpointing it would leave the blocks as they are.
        """
        for module in self.modules():
            if isinstance(module, EncoderBlock):
                module.compiled = True


class NeoBERT(NeoBERTPreTrainedModel):
    """The encoder: token ids to one vector a token."""

    def __init__(self, config: NeoBERTConfig):
        super().__init__(config)
        self.encoder = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.transformer_encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        max_seqlen: int = 0,
        layout: Layout | None = None,
    ) -> BaseModelOutput:
        """Padded: `input_ids`, `attention_mask` and `position_ids` are (batch, length).

        `attention_mask` is 1 for tokens and 0 for padding on either side. Padding never influences a token, and what is
        returned there is zero. Positions count from 0.

        Packed: `input_ids` is (1, tokens), with the sequences end to end; `cu_seqlens` is (sequences + 1,), int32, from
        0 to the number of tokens. No token sees another sequence's. `lengths` (on the host) and `max_seqlen` spare the
        host a look at the device; see `Segments`.

        `layout`, which `input_ids` are laid out by, spares both; see `fixed_layout`.
        """
        if layout is None:
            layout = (
                padded_layout(input_ids, attention_mask, position_ids)
                if cu_seqlens is None
                else packed_layout(input_ids, cu_seqlens, lengths, max_seqlen, position_ids)
            )
        return BaseModelOutput(last_hidden_state=layout.back(self.encode(layout)))

    def encode(self, layout: Layout) -> Tensor:
        """The states of all tokens, (tokens, hidden size)."""
        if layout.width > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"{layout.width} tokens, but the model takes at most {limit}")
        states = self.encoder(layout.ids)
        angles, scale = frequencies(self.config, states.device)
        cos, sin = (table.unsqueeze(-2) for table in rotation(layout.positions, angles, scale))  # alike for all heads
        kind = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled(states.device.type) else None
        backend = choose(self.attn_backend, states.device, kind or states.dtype, self.config.head_size)
        for block in self.transformer_encoder:
            states = block(states, layout.segments, cos, sin, backend)
        return self.layer_norm(states)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, pooling: str = "mean") -> Tensor:
        """One vector a text, (batch, hidden size): see `pool`."""
        return pool(self(input_ids, attention_mask).last_hidden_state, attention_mask, pooling)


def pool(states: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """One vector a text, (batch, hidden size): the `mean` of its tokens, or the state of the first one (`cls`).

    Padding, on whichever side, has states of zero, as `NeoBERT` returns them.
    """
    if pooling == "cls":
        if attention_mask is None:
            return states[:, 0]
        return states[torch.arange(len(states), device=states.device), attention_mask.argmax(dim=1)]
    if pooling == "mean":
        if attention_mask is None:
            return states.mean(dim=1)
        return states.sum(dim=1) / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)
    raise ValueError(f"pooling is {pooling!r}; expected mean or cls")


@dataclass
class MaskedWords(ModelOutput):
    """What guessing masked words came to.

    `loss` is the mean over the masked tokens, `loss_sum` their sum, `masked` how many there are, `correct` how many
    were guessed right; `logits` are (batch, length, vocabulary), and only there where no labels were given.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    loss_sum: Tensor | None = None
    masked: Tensor | None = None
    correct: Tensor | None = None


class Decoder(nn.Linear):
    """From states to words. With labels it gives the loss, and never holds the logits of all tokens."""

    def forward(self, states: Tensor, labels: Tensor | None = None) -> Any:
        if labels is None:
            return super().forward(states)
        return linear_cross_entropy(states, self.weight, self.bias, labels)


class NeoBERTForMaskedLM(NeoBERTPreTrainedModel):
    """Guesses the words that were masked."""

    _tied_weights_keys = {"decoder.weight": "model.encoder.weight"}

    def __init__(self, config: NeoBERTConfig):
        super().__init__(config)
        self.model = NeoBERT(config)
        self.decoder = Decoder(config.hidden_size, config.vocab_size, bias=config.decoder_bias)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder

    def set_output_embeddings(self, value: Decoder) -> None:
        self.decoder = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        max_seqlen: int = 0,
    ) -> MaskedWords:
        """`labels` is shaped as `input_ids`: what stood at masked positions, and -100 at all others."""
        states = self.model(input_ids, attention_mask, position_ids, cu_seqlens, lengths, max_seqlen).last_hidden_state
        if labels is None:
            return MaskedWords(logits=self.decoder(states))
        places = (labels != IGNORED).flatten().nonzero().squeeze(-1)
        total, correct = self.decoder(states.flatten(0, 1)[places], labels.flatten()[places])
        masked = torch.tensor(len(places), device=states.device)
        return MaskedWords(loss=total / masked.clamp(min=1), loss_sum=total, masked=masked, correct=correct)


class NeoBERTForSequenceClassification(NeoBERTPreTrainedModel):
    """Classes or, with one label, a number, from one vector a text: `config.classifier_pooling` says which."""

    def __init__(self, config: NeoBERTConfig):
        super().__init__(config)
        self.model = NeoBERT(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        layout: Layout | None = None,
    ) -> SequenceClassifierOutput:
        """`labels` is (batch,): class indices, or floats where `config.num_labels` is 1 (mean squared error).

        There is no `**kwargs` on purpose: Trainer takes it as "the loss is normalised by num_items_in_batch", and
        multiplies the gradient by the number of processes and of accumulated batches.
        """
        states = self.model(input_ids, attention_mask, position_ids, layout=layout).last_hidden_state
        text = pool(states, attention_mask, self.config.classifier_pooling)
        pooled = torch.tanh(self.dense(self.dropout(text)))
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class NeoBERTForTokenClassification(NeoBERTPreTrainedModel):
    """A class for each token."""

    def __init__(self, config: NeoBERTConfig):
        super().__init__(config)
        self.model = NeoBERT(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """`labels` is (batch, length): class indices, and -100 where there is nothing to tell."""
        states = self.model(input_ids, attention_mask, position_ids).last_hidden_state
        logits = self.classifier(self.dropout(states))
        loss = None if labels is None else self.loss_function(labels=labels, logits=logits, config=self.config)
        return TokenClassifierOutput(loss=loss, logits=logits)
