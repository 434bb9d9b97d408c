"""Settings of `neobert pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from neobert.config.base import Strict
from neobert.config.deepspeed import DeepSpeedConfig, check_agreement
from neobert.config.deepspeed_file import facts_of_batches
from neobert.config.hub import OnHub
from neobert.config.keep import Keep
from neobert.config.paths import LocalPath, ModelPath
from neobert.config.sections import Decay, Fraction, NonNegative, Positive, check_sizes
from neobert.config.text import TokenizerConfig, TrainingText

AttnBackend = Literal["auto", "sdpa", "varlen", "xformers", "flex"]


class RopeScaling(Strict):
    """How RoPE is stretched to sequences that are longer than those the model has seen, in Hugging Face's words."""

    rope_type: Literal["linear", "yarn", "llama3"]
    factor: float = Field(gt=1)
    original_max_position_embeddings: Positive | None = Field(None, description="the model's own, if left out")
    low_freq_factor: float = Field(1.0, gt=0, description="llama3: pairs that turn less often are stretched in whole")
    high_freq_factor: float = Field(4.0, gt=0, description="llama3: pairs that turn more often are left alone")

    @model_validator(mode="after")
    def _factors(self) -> RopeScaling:
        given = sorted(_OF_LLAMA3 & self.model_fields_set)
        if given and self.rope_type != "llama3":
            raise ValueError(f"{' and '.join(given)} can only stand beside rope_type: llama3")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor {self.low_freq_factor} must be less than high_freq_factor {self.high_freq_factor}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_others_factors(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {k: v for k, v in values.items() if self.rope_type == "llama3" or k not in _OF_LLAMA3}


_OF_LLAMA3 = {"low_freq_factor", "high_freq_factor"}


class EncoderConfig(Strict):
    """A NeoBERT of this size with random weights, or the one that `name_or_path` names.

    The vocabulary is the tokenizer's.
    """

    name_or_path: Annotated[ModelPath | None, OnHub("model", revision="revision")] = Field(
        None, description="a model directory or a name on the hub"
    )
    revision: str | None = None

    hidden_size: Positive = 768
    num_hidden_layers: Positive = 28
    num_attention_heads: Positive = 12
    intermediate_size: Positive = Field(3072, description="before SwiGLU's factor of 2/3")
    norm_eps: float = Field(1e-5, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    tie_word_embeddings: bool = False
    decoder_bias: bool = True

    max_position_embeddings: Positive = 1024
    rope_theta: float = Field(10000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    attn_backend: AttnBackend = "auto"

    @model_validator(mode="after")
    def _sizes_fit(self) -> EncoderConfig:
        check_sizes(self, _SIZES, self.name_or_path is None)
        return self

    @model_serializer(mode="wrap")
    def _without_moot_sizes(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that settings that were written out can be read again: sizes stand beside no `name_or_path`."""
        values: dict[str, Any] = serialize(self)
        if self.name_or_path is None:
            return values
        stretched = {"max_position_embeddings", "rope_theta"} - self.model_fields_set
        return {k: v for k, v in values.items() if k not in _SIZES | stretched}


_SIZES = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps", "initializer_range",
    "tie_word_embeddings", "decoder_bias",
}  # fmt: skip


class DatasetConfig(TrainingText):
    """What to pretrain on: one source, or several in `sources`."""

    path: LocalPath | None = Field(None, description="directory of shards that `neobert preprocess` has made")
    sources: list[TrainingText] | None = Field(None, min_length=1, description="several, with or without weights")
    streaming: bool = Field(False, description="tokenise files and hub data as they come; not for shards")
    validation: TrainingText | None = Field(None, description="held-out text; by default that which the shards hold")
    eval_samples: Positive = Field(2000, description="at most so many pieces of held-out text")
    max_seq_length: int = Field(1024, ge=8, description="tokens a row; several pieces share one")
    shuffle_buffer_size: Positive = Field(10_000, description="about how many pieces are shuffled together")
    lanes: Positive | None = Field(None, description="8 for each process at the start of the training, if left out")
    num_workers: NonNegative = Field(0, description="processes that read data, for each process that trains")

    def _places(self) -> tuple[str, ...]:
        return ("path", "files", "hub", "generated", "sources")

    @model_validator(mode="after")
    def _sources_agree(self) -> DatasetConfig:
        if self.weight is not None:
            raise ValueError("weight is for one of several sources")
        weights = [source.weight for source in self.all_sources]
        if len({weight is None for weight in weights}) > 1:
            raise ValueError("sources: either all have a weight, or none has")
        streamed = [source for source in self.all_sources if source.path is None]
        if streamed and not self.streaming:
            raise ValueError(
                "files and hub data need streaming: true, or are made into shards by `neobert preprocess` first"
            )
        if self.streaming and len(streamed) < len(weights):
            raise ValueError("streaming: true is for files and hub data, and not for shards (path)")
        return self

    @property
    def all_sources(self) -> list[TrainingText]:
        return self.sources if self.sources is not None else [self]


class CollatorConfig(Strict):
    """What is masked, and how pieces share the rows of a batch."""

    mlm_probability: float = Field(0.2, gt=0, lt=1)
    mask_all: bool = Field(False, description="[MASK] for all that is to be guessed, and not 80/10/10")
    whole_words: bool = False
    pack_sequences: bool = Field(True, description="without padding; exact, no piece sees another")
    pad_to_multiple_of: Positive = Field(1, description="without pack_sequences")
    max_tokens: Positive | None = Field(
        None,
        description="tokens a row, instead of dataset.max_seq_length; without pack_sequences, a batch, padding and all",
    )


class MuonConfig(Strict):
    """Muon (https://kellerjordan.github.io/posts/muon) for the matrices of the encoder's blocks."""

    momentum: Decay = 0.95
    nesterov: bool = True
    ns_steps: Positive = 5
    lr_scale: Literal["original", "match_rms_adamw"] = Field(
        "match_rms_adamw", description="match_rms_adamw: updates as large as AdamW's, for one learning rate"
    )


class PretrainOptimizer(Strict):
    name: Literal["adamw", "stable_adamw", "muon"] = Field(
        "adamw", description="stable_adamw clips updates; muon is for matrices, and AdamW for all else"
    )
    lr: float = Field(6e-4, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), strict=False)
    eps: float = Field(1e-8, gt=0)
    muon: MuonConfig | None = None

    @model_validator(mode="after")
    def _muon(self) -> PretrainOptimizer:
        if self.muon is not None and self.name != "muon":
            raise ValueError("muon goes with name: muon")
        return self


class PretrainScheduler(Strict):
    """The learning rate over the training, in steps or, where `trainer.max_tokens` says its length, in tokens."""

    name: Literal["cosine", "linear", "wsd", "constant"] = Field(
        "cosine", description="wsd: constant, then down with 1 - sqrt (https://arxiv.org/abs/2405.18392)"
    )
    warmup_steps: NonNegative | None = None
    warmup_tokens: NonNegative | None = None
    warmup_ratio: Fraction | None = Field(None, description="share of the whole training")
    decay_steps: Positive | None = Field(None, description="wsd: the last so many; likewise the next two")
    decay_tokens: Positive | None = None
    decay_ratio: Fraction | None = None
    final_lr_ratio: Fraction = Field(0.1, description="the last learning rate, as a share of optimizer.lr")

    @model_validator(mode="after")
    def _one_each(self) -> PretrainScheduler:
        for kind in ("warmup", "decay"):
            given = [
                f"{kind}_{unit}" for unit in ("steps", "tokens", "ratio") if getattr(self, f"{kind}_{unit}") is not None
            ]
            if len(given) > 1:
                raise ValueError(f"expected at most one of {' and '.join(given)}")
            if kind == "decay" and given and self.name != "wsd":
                raise ValueError(f"{given[0]} goes with name: wsd; the others go down to the end")
        return self


class PretrainTrainer(Strict):
    """How to train; names as in `transformers.TrainingArguments`, where it has them."""

    per_device_train_batch_size: Positive = Field(16, description="rows of dataset.max_seq_length tokens")
    per_device_eval_batch_size: Positive = 16
    gradient_accumulation_steps: Positive = 1
    max_steps: Positive | None = Field(None, description="exactly one of this and the next two")
    max_tokens: Positive | None = Field(None, description="real ones, and not padding")
    num_train_epochs: float | None = Field(None, gt=0, description="of shards; not of streams, whose size is not known")
    gradient_clipping: float | None = Field(1.0, gt=0)
    mixed_precision: Literal["no", "auto", "bf16"] = Field("no", description="auto: bf16 where it pays")
    tf32: bool = True
    gradient_checkpointing: bool = False
    torch_compile: bool = False

    eval_steps: Positive | None = None
    save_steps: Positive = 1000
    logging_steps: Positive = 10
    save_total_limit: Positive = 2
    keep: Keep | None = Field(
        None,
        description="once the trial is done, keep its last checkpoint beside the model (last, the default), the model "
        "alone (best), or all that save_total_limit allows",
    )
    resume_from_checkpoint: Literal["auto", "latest", True] | LocalPath = Field(
        "auto",
        description="the newest of this trial, which it does in any case; or one to begin from, of another trial: its "
        "directory, that of the trial, or of the trial's checkpoints",
    )
    max_skipped_steps: NonNegative = Field(10, description="steps with a gradient that is no number, or a spike")
    spike_factor: float | None = Field(None, gt=1, description="a spike: so many times the usual size of the gradient")

    profile_steps: Positive | None = Field(
        None, description="PyTorch's profiler over so many steps, after the first 10"
    )
    peak_tflops: Annotated[float, Field(gt=0)] | Literal["measure"] | None = Field(
        None, description="of the device, for MFU: given, or measured at the start; known ones need none"
    )
    use_cpu: bool = False

    @field_validator("resume_from_checkpoint")
    @classmethod
    def _one_word(cls, given: str | bool) -> str | bool:
        """Three words for the same must not make three trials of it."""
        return "auto" if given in ("latest", True) else given

    @model_validator(mode="after")
    def _one_length(self) -> PretrainTrainer:
        names = ("max_steps", "max_tokens", "num_train_epochs")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(names)}; found {' and '.join(given) or 'none'}")
        return self

    @model_serializer(mode="wrap")
    def _without_default_keep(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out `keep` where it is not set, so that older code can read the rest."""
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "keep" or value is not None}


def decay_too_long(whole: int, unit: str) -> str:
    return f"is more than the {whole} {unit} of the training. scheduler.name: linear goes down all the way"


class PretrainConfig(Strict):
    """Pretrains an encoder on masked words (https://arxiv.org/abs/1810.04805)."""

    # Where a training has begun is past once it has a checkpoint of its own, from which it goes on in any case.
    may_change = frozenset({"dataset.num_workers", "trainer.resume_from_checkpoint", "trainer.keep"})

    seed: int = Field(42, ge=0, lt=2**32)
    model: EncoderConfig = EncoderConfig()
    tokenizer: TokenizerConfig | None = Field(None, description="by default that of the shards")
    dataset: DatasetConfig
    datacollator: CollatorConfig = CollatorConfig()
    optimizer: PretrainOptimizer = PretrainOptimizer()
    scheduler: PretrainScheduler = PretrainScheduler()
    trainer: PretrainTrainer
    deepspeed: DeepSpeedConfig | None = None

    @model_validator(mode="after")
    def _agree(self) -> PretrainConfig:
        dataset, collator, trainer = self.dataset, self.datacollator, self.trainer
        if dataset.streaming and self.tokenizer is None:
            raise ValueError("tokenizer is required with dataset.streaming")
        if dataset.streaming and trainer.num_train_epochs is not None:
            raise ValueError("trainer.num_train_epochs: the size of a stream is not known; set max_steps or max_tokens")
        if self.tokenizer is not None and self.tokenizer.train_vocab_size is not None:
            raise ValueError("tokenizer.train_vocab_size is for `neobert preprocess`; name the tokenizer that it made")
        if self.model.name_or_path is None and dataset.max_seq_length > self.model.max_position_embeddings:
            raise ValueError(
                f"dataset.max_seq_length {dataset.max_seq_length} is more than the model can take: "
                f"model.max_position_embeddings is {self.model.max_position_embeddings}"
            )
        if collator.max_tokens is not None and collator.max_tokens < dataset.max_seq_length:
            raise ValueError("datacollator.max_tokens is less than dataset.max_seq_length: not every piece would fit")
        if collator.max_tokens is not None and not collator.pack_sequences:
            names = ("per_device_train_batch_size", "per_device_eval_batch_size")
            many = [f"trainer.{name}" for name in names if getattr(trainer, name) > 1]
            if many:
                raise ValueError(
                    "datacollator.max_tokens without pack_sequences is what a whole batch takes, and pieces of several "
                    f"such batches padded alike would take more: set {' and '.join(many)} to 1 "
                    "(trainer.gradient_accumulation_steps makes larger steps)"
                )
        in_tokens = trainer.max_steps is None
        for name in ("warmup", "decay"):
            if getattr(self.scheduler, f"{name}_{'steps' if in_tokens else 'tokens'}") is not None:
                unit, key = ("tokens", "max_steps") if in_tokens else ("steps", "max_tokens")
                raise ValueError(f"scheduler: the training is measured in {unit}, so {name}_{unit} would fit, or "
                                 f"trainer.{key}")  # fmt: skip
        if self.deepspeed is not None:
            self._check_deepspeed(self.deepspeed)
        return self

    @model_validator(mode="after")
    def _length_is_known_and_enough(self) -> PretrainConfig:
        """Checked before text is read: otherwise a job would fail after it has waited."""
        trainer = self.trainer
        if trainer.num_train_epochs is not None and any(source.weight for source in self.dataset.all_sources):
            raise ValueError("trainer.num_train_epochs: weighted sources have no epochs: set max_tokens")
        for unit, whole in (("steps", trainer.max_steps), ("tokens", trainer.max_tokens)):
            decay = getattr(self.scheduler, f"decay_{unit}")
            if whole is not None and decay is not None and decay > whole:
                raise ValueError(f"scheduler.decay_{unit}: {decay_too_long(whole, unit)}")
        return self

    def _check_deepspeed(self, section: DeepSpeedConfig) -> None:
        check_agreement(section, facts_of_batches(self.trainer, None))
        if self.trainer.spike_factor is not None:
            raise ValueError("trainer.spike_factor: DeepSpeed has taken a step before its gradient can be judged, so "
                             "none can be skipped: leave it out")  # fmt: skip
        if self.optimizer.name != "adamw" and section.stage > 0:
            raise ValueError(
                f"optimizer.name {self.optimizer.name} needs whole matrices, and DeepSpeed gives each process a slice "
                f"at zero_stage {section.stage}: take adamw, or zero_stage 0"
            )

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "deepspeed" or value is not None}

    @property
    def starts_from(self) -> Path | None:
        """The checkpoint that a new trial begins from, if another's."""
        given = self.trainer.resume_from_checkpoint
        return None if given == "auto" else Path(str(given))
