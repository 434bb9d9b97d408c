"""NeoBERT in PyTorch: pre-norm blocks of rotary attention and SwiGLU, without biases.

Modules are named as in the published chandar-lab/NeoBERT, so that its weights load name by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple

from neobert.model.attention import attention, key_mask
from neobert.model.configuration import NeoBERTConfig
from neobert.model.rotary import rotate, rotation


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

    def __init__(self, config: NeoBERTConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.ffn = SwiGLU(config)
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.ffn_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, states: Tensor, mask: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        states = states + self._attend(self.attention_norm(states), mask, cos, sin)
        return states + self.ffn(self.ffn_norm(states))

    def _attend(self, states: Tensor, mask: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        # The published weights interleave q, k and v head by head: (heads, 3 x head size), not [Q; K; V].
        per_head = self.qkv(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query, key, value = per_head.chunk(3, dim=-1)
        mixed = attention(rotate(query, cos, sin), rotate(key, cos, sin), value, mask)
        return self.wo(mixed.transpose(1, 2).flatten(-2))


class NeoBERTPreTrainedModel(PreTrainedModel):
    config_class = NeoBERTConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["EncoderBlock"]


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
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """All arguments are (batch, length); `attention_mask` is 1 for tokens and 0 for padding on either side.

        Padding never influences a token; what is returned at padding has no meaning. Positions count from 0.
        """
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(f"{length} tokens, but the model takes at most {self.config.max_position_embeddings}")
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device)
        # One more axis, over which the heads share their angles.
        cos, sin = rotation(position_ids.unsqueeze(-2), self.config.head_size, self.config.rope_theta)
        mask = None if attention_mask is None else key_mask(attention_mask)

        states = self.encoder(input_ids)
        for block in self.transformer_encoder:
            states = block(states, mask, cos, sin)
        return BaseModelOutput(last_hidden_state=self.layer_norm(states))


class NeoBERTForSequenceClassification(NeoBERTPreTrainedModel):
    """Classes or, with one label, a number, from the state of the first token ([CLS])."""

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
    ) -> SequenceClassifierOutput:
        """`labels` is (batch,): class indices, or floats where `config.num_labels` is 1 (mean squared error).

        There is no `**kwargs` on purpose: Trainer takes it as "the loss is normalised by num_items_in_batch", and
        multiplies the gradient by the number of processes and of accumulated batches.
        """
        states = self.model(input_ids, attention_mask, position_ids).last_hidden_state
        pooled = torch.tanh(self.dense(self.dropout(states[:, 0])))
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)
