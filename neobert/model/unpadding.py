"""Hugging Face's encoders without a computation for padding, or for states that no head looks at.

Their blocks compute each token by itself, but for attention. So they can be given the tokens of a batch end to end, as
one row without padding, if attention is told where each text begins: as in our own model. Embeddings, which cost next
to nothing, still see the padded batch. The heads of these models look at the first token alone: the last block, a sixth
of MiniLM, computes keys and values of all tokens (on CPUs not even these), and everything else of the first ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from neobert.model.attention import Segments, attention, attention_of_first, choose
from neobert.model.first_attention import first_attention
from neobert.model.length_groups import in_groups
from neobert.model.modeling import NeoBERTPreTrainedModel
from neobert.model.packing import Layout, padded_layout
from neobert.model.verify import encoder_of

log = logging.getLogger(__name__)

NAME = "neobert_unpadded"


def spare_padding(
    model: Any, device: torch.device, padding_matters: Callable[[], bool], dtype: torch.dtype = torch.float32
) -> bool:
    """Lets a classifier compute as little of a batch's padding as can be; what it computes stays the same.

    `dtype` is what attention will be computed in. On GPUs, FlashAttention takes texts end to end; without it a kernel
    would have to be started for each length. There, and of models that are not known, batches are computed in groups of
    like lengths; where `padding_matters` (see `neobert.model.neighbours`), of equal ones: so that scores do not depend
    on a batch's other texts.

    Returns whether no padding is computed at all, and the model takes a `Layout`.
    """
    if isinstance(model, NeoBERTPreTrainedModel):
        return True
    encoder = encoder_of(model)[1]
    if _can_unpad(model, encoder) and _has_kernel(model, device, dtype):
        return unpad(model, encoder)
    changes = padding_matters()
    if changes:
        log.info("padding changes what %s says of a text: only texts of one length are computed together, which takes "
                 "longer", type(model).__name__)  # fmt: skip
    in_groups(model, without_padding=changes)
    return False


def _has_kernel(model: Any, device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cpu":
        return True
    head_size = model.config.hidden_size // model.config.num_attention_heads
    return choose("auto", device, dtype, head_size) == "varlen"


def warn_of_padding(model: Any, padding_matters: Callable[[], bool]) -> None:
    """Where padding cannot be spared, as with DeepSpeed, but changes what a model says."""
    if not isinstance(model, NeoBERTPreTrainedModel) and padding_matters():
        log.warning("padding changes what %s says of a text, and with DeepSpeed it is computed: scores depend on which "
                    "texts share a batch. Without the section deepspeed they do not", type(model).__name__)  # fmt: skip


def takes_padding_left(model: Any) -> bool:
    """BERT and its kin count positions from the left, and their heads look at the first column, padding or not."""
    return model.config.model_type not in KINDS


def unpad(model: Any, encoder: nn.Module) -> bool:
    """Lets the blocks of a classifier's `encoder` compute no padding; whether that can be done with such a model."""
    if not _can_unpad(model, encoder):
        return False
    place, of_first = KINDS[model.config.model_type]
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)
    packed = _Packed()
    encoder.register_forward_pre_hook(packed.look, with_kwargs=True)
    blocks = getattr(encoder, place)
    blocks.register_forward_pre_hook(packed.pack, with_kwargs=True)
    blocks.register_forward_hook(packed.unpack)
    of_first(blocks.layer[-1])
    return True


def is_known(model: Any) -> bool:
    """Return True for a model whose computation is known here: our own, or one of `KINDS`."""
    return isinstance(model, NeoBERTPreTrainedModel) or _can_unpad(model, encoder_of(model)[1])


def _can_unpad(model: Any, encoder: nn.Module) -> bool:
    """Code of others may call itself BERT as well, and look at more than first tokens, or at what comes before each."""
    theirs = all(type(part).__module__.startswith("transformers.models.") for part in (model, encoder))
    return theirs and model.config.model_type in KINDS and not getattr(model.config, "is_decoder", False)


class _Packed:
    """The batch that is being computed."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._rows = 0

    def look(self, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if "layout" in named:
            self._layout = named.pop("layout")
            self._rows = len(self._layout.rows)
            return positional, named | {"attention_mask": None}
        ids = named["input_ids"] if "input_ids" in named else positional[0]
        mask = named["attention_mask"] if "attention_mask" in named else positional[1] if positional[1:] else None
        self._layout, self._rows = padded_layout(ids, mask), len(ids)
        return None

    def pack(self, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        assert self._layout is not None
        states = named.pop("hidden_states") if "hidden_states" in named else positional[0]
        named |= {"attention_mask": None, "segments": self._layout.segments}
        return (self._layout.take(states.flatten(0, 1))[None],), named

    def unpack(self, _: nn.Module, positional: tuple[Any, ...], output: Any) -> Any:
        """To (batch, 1, hidden size), in the order of the batch; with a given layout, of all its sequences."""
        assert self._layout is not None
        firsts = output.last_hidden_state[0]
        empty = firsts.new_zeros(self._rows, firsts.shape[-1])
        output.last_hidden_state = empty.index_copy(0, self._layout.rows, firsts)[:, None]
        self._layout = None
        return output


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    segments: Segments, dropout: float = 0.0, scaling: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Of (1, heads, tokens, head size); returns (1, tokens, heads, head size)."""
    if scaling is not None and abs(scaling * query.shape[-1] ** 0.5 - 1) > 1e-6:
        query = query * (scaling * query.shape[-1] ** 0.5)
    query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    return attention(query, key, value, segments, _backend(query), dropout)[None], None


def _backend(tensor: Tensor) -> str:
    return choose("auto", tensor.device, tensor.dtype, tensor.shape[-1])


def _no_mask(*_: Any, **__: Any) -> None:
    """What is a text and what another one, `segments` tells."""


# -- last blocks ------------------------------------------------------------------------------------------------------


def _of_first(layers: tuple[nn.Linear, nn.Linear, nn.Linear], heads: int, drop: nn.Dropout, states: Tensor,
              segments: Segments) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The first tokens of (1, tokens, hidden size), and what they attend to: (1, sequences, hidden size) each.

    `layers` are those of queries, keys and values.
    """
    states = states.squeeze(0)
    firsts = states.index_select(0, segments.firsts)
    to_query, to_key, to_value = layers
    query, share = to_query(firsts).unflatten(-1, (heads, -1)), drop.p if drop.training else 0.0
    if states.device.type == "cpu":
        mixed = first_attention(query, states, to_key, to_value, segments, share)
    else:
        key, value = (layer(states).unflatten(-1, (heads, -1)) for layer in (to_key, to_value))
        mixed = attention_of_first(query, key, value, segments, share, _backend(query))
    return firsts[None], mixed.flatten(-2)[None]


def _bert(block: Any) -> None:
    whole, inner = block.attention, block.attention.self

    def forward(hidden_states: Tensor, *_: Any, segments: Segments, **__: Any) -> tuple[Tensor, None]:
        layers = (inner.query, inner.key, inner.value)
        firsts, mixed = _of_first(layers, inner.num_attention_heads, inner.dropout, hidden_states, segments)
        return whole.output(mixed, firsts), None

    whole.forward = forward


def _distilbert(block: Any) -> None:
    inner = block.attention

    def forward(hidden_states: Tensor, *_: Any, segments: Segments, **__: Any) -> Tensor:
        layers = (inner.q_lin, inner.k_lin, inner.v_lin)
        firsts, mixed = _of_first(layers, inner.n_heads, inner.dropout, hidden_states, segments)
        attended = block.sa_layer_norm(inner.out_lin(mixed) + firsts)
        return block.output_layer_norm(block.ffn(attended) + attended)

    block.forward = forward


KINDS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "bert": ("encoder", _bert), "camembert": ("encoder", _bert), "distilbert": ("transformer", _distilbert),
    "electra": ("encoder", _bert), "roberta": ("encoder", _bert), "xlm-roberta": ("encoder", _bert),
}  # fmt: skip
"""Kinds of models of which a test has shown that they compute the same: where the encoder's blocks are, and what lets
the last of them compute first tokens alone."""
