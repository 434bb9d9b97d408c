"""The model of a pretraining: new, or one that exists, under a head for masked words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from neobert.checkpoint.errors import reason_of
from neobert.checkpoint.find import whole
from neobert.checkpoint.read import find_damage
from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.config.paths import why_missing
from neobert.config.pretrain import EncoderConfig
from neobert.config.text import TokenizerConfig
from neobert.data.text.pieces import fingerprint
from neobert.data.text.tokenizer import load_tokenizer
from neobert.errors import RunError
from neobert.hub import how_to_fetch
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM, verify
from neobert.model.attention import UnknownBackend, choose
from neobert.model.verify import EXPORT_FIRST

log = logging.getLogger(__name__)


def build_model(
    config: EncoderConfig, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, checkpoint: Path | None
) -> NeoBERTForMaskedLM:
    """The model of `checkpoint` when resuming, otherwise what the settings name or describe.

    Raises `ConfigError` when model, tokenizer and the length of sequences do not go together, and `RunError` for a
    checkpoint that is damaged.
    """
    if checkpoint is None and config.name_or_path is None:
        model = NeoBERTForMaskedLM(_shape(config, tokenizer))
    else:
        try:
            model = _load(str(checkpoint or config.name_or_path), config)
        except ConfigError as error:
            if checkpoint is None:
                raise
            raise RunError(error.problems[0].message) from None
        if config.name_or_path is None:
            _check_shape(model.config, config, checkpoint)
        elif checkpoint is None:
            _check_tokenizer(config.name_or_path, config.revision, tokenizer)
    model.model.attn_backend = config.attn_backend
    entries, embeddings = len(tokenizer), model.config.vocab_size
    if entries > embeddings:
        raise ConfigError.at(("tokenizer",), f"has {entries} entries, but the model only {embeddings} embeddings")
    limit = model.config.max_position_embeddings
    if max_seq_length > limit:
        message = f"is {max_seq_length}, but the model takes at most {limit} (model.max_position_embeddings sets more)"
        raise ConfigError.at(("dataset", "max_seq_length"), message)
    return model


ARCHITECTURE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps",
                "tie_word_embeddings", "decoder_bias")  # fmt: skip
"""Of a model that exists, these cannot be changed."""


def check_backend(model: NeoBERTForMaskedLM, device: torch.device, dtype: torch.dtype) -> None:
    """Raises `ConfigError` for an attention backend that cannot be used here; without it, the first batch would."""
    shape = model.config
    try:
        choose(model.model.attn_backend, device, dtype, shape.hidden_size // shape.num_attention_heads)
    except UnknownBackend as error:
        raise ConfigError.at(("model", "attn_backend"), str(error)) from None


def _check_tokenizer(model: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """With another one, every embedding would be that of another token, and nothing else would tell."""
    ours = fingerprint(tokenizer)
    try:
        theirs = fingerprint(load_tokenizer(model, TokenizerConfig(name_or_path=model, revision=revision)))
        same = theirs == ours
    except ConfigError as error:
        if _file_of(model, revision, "tokenizer.json") is not None:
            raise error.located(lambda path: "", lambda path: ("model", "name_or_path")) from None
        vocabulary = _file_of(model, revision, "vocab.txt")
        if vocabulary is None:
            log.warning("%s comes with no tokenizer, so nothing tells whether %s is the one that it was trained with",
                        model, tokenizer.name_or_path)  # fmt: skip
            return
        theirs, same = "its vocab.txt", _agrees(vocabulary, tokenizer)
    if not same:
        named = f"tokenizer.name_or_path={model}" + (f" tokenizer.revision={revision}" if revision else "")
        raise ConfigError.at(
            ("model", "name_or_path"),
            f"{model} goes with its own tokenizer ({theirs}), and {tokenizer.name_or_path} ({ours}) is another one. "
            f"Make shards with `neobert preprocess {named}`, or begin with new weights",
        )


def _file_of(model: str, revision: str | None, name: str) -> Path | None:
    """Of a directory, or of the hub or its cache."""
    try:
        found = cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError:  # neither there nor here
        return None
    return Path(found) if found else None


def _agrees(vocabulary: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer numbers the tokens as they stand in a vocab.txt. How it splits words is not told there."""
    tokens = vocabulary.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    known = tokenizer.get_vocab()
    return all(known.get(token) == number for number, token in enumerate(tokens))


def _check_shape(shape: NeoBERTConfig, config: EncoderConfig, checkpoint: Path | None) -> None:
    changed = [
        f"{name} is {getattr(shape, name)} there and {getattr(config, name)} here"
        for name in ARCHITECTURE
        if getattr(shape, name) != getattr(config, name)
    ]
    if changed:
        raise ConfigError.at(
            ("model",), f"{checkpoint} is a checkpoint of another model: {'; '.join(changed)}. Set these as there, or "
            "leave out resume_from_checkpoint to begin anew"
        )  # fmt: skip


def _shape(config: EncoderConfig, tokenizer: PreTrainedTokenizerBase) -> NeoBERTConfig:
    names = (*ARCHITECTURE, "rope_theta", "max_position_embeddings", "initializer_range")
    sizes = {name: getattr(config, name) for name in names}
    shape = NeoBERTConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    _stretch(shape, config)
    return shape


def _load(source: str, config: EncoderConfig) -> NeoBERTForMaskedLM:
    try:
        options: dict[str, Any] = {"revision": config.revision} if source == config.name_or_path else {}
        whole(Path(source))
        shape = AutoConfig.from_pretrained(source, **options)
        if not isinstance(shape, NeoBERTConfig):
            raise ConfigError(f"{source!r} is a {shape.model_type}, and only NeoBERT models are pretrained here")
        _stretch(shape, config)
        model, info = NeoBERTForMaskedLM.from_pretrained(
            source, config=shape, output_loading_info=True, dtype=torch.float32, **options
        )
    except ConfigError as error:
        raise error.located(lambda path: "", lambda path: ("model", "name_or_path")) from None
    except Exception as error:  # noqa: BLE001  # OSError, ValueError, KeyError, SafetensorError, the hub's own
        first = (find_damage(Path(source)) if Path(source).is_dir() else None) or reason_of(error)
        if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
            first = f"it has no config.json. {EXPORT_FIRST.format(source=source)}"
        if not Path(source).exists():
            wanted = HubName("model", source, config.revision)
            first += f" (there is no such directory){why_missing(Path(source))}\n{how_to_fetch(wanted)}"
        raise ConfigError.at(
            ("model", "name_or_path"), f"{source!r}: no model can be loaded from it: {first}"
        ) from None
    verify.check_weights(source, "name_or_path", model, info)
    if info["missing_keys"]:
        log.info("new weights: %s", ", ".join(sorted(info["missing_keys"])))
    return model


def _stretch(shape: NeoBERTConfig, config: EncoderConfig) -> None:
    """Sets what may differ from the model that is loaded: for how long sequences it is, and RoPE.

    A stretched RoPE is stretched from the length that the model was first trained on. A model that has been stretched
    before, as that of a checkpoint has, remembers it.
    """
    rope = dict(shape.rope_parameters or {})
    trained_on = rope.get("original_max_position_embeddings", shape.max_position_embeddings)
    if "rope_theta" in config.model_fields_set:
        if rope.get("rope_theta", config.rope_theta) != config.rope_theta:
            log.warning("model.rope_theta is %g, and the weights were trained with %g", config.rope_theta,
                        rope["rope_theta"])  # fmt: skip
        rope["rope_theta"] = config.rope_theta
    if config.rope_scaling is not None:
        said = config.rope_scaling.model_dump(exclude_none=True)
        rope = {"rope_theta": rope["rope_theta"], "original_max_position_embeddings": trained_on, **said}
    if "max_position_embeddings" in config.model_fields_set:
        shape.max_position_embeddings = config.max_position_embeddings
    shape.rope_parameters = rope
