"""The sections that several tasks share, in the vocabulary of Hugging Face and of NeoBERT's own configurations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from neobert.config.base import Strict
from neobert.config.hub import OnHub
from neobert.config.keep import Keep
from neobert.config.paths import LocalPath, ModelPath

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def greater_is_better(metric: str) -> bool:
    """Whether more of a metric, known by its name, is better: losses and `perplexity` shall be small."""
    return not metric.startswith(("loss", "eval_loss", "test_loss", "perplexity"))


def check_sizes(model: Any, sizes: set[str], is_new: bool) -> None:
    """For validators of sections with the sizes of a new NeoBERT; raises `ValueError`."""
    given = sorted(sizes & model.model_fields_set)
    if not is_new and given:
        raise ValueError(f"{', '.join(given)} cannot be set beside a model that exists, which has its size")
    if is_new and model.hidden_size % (2 * model.num_attention_heads):
        raise ValueError("hidden_size must be a multiple of 2 x num_attention_heads (RoPE rotates pairs)")


class ModelConfig(Strict):
    """Which encoder: one that exists, or a NeoBERT of the given size with random weights.

    One that exists is `name_or_path`, or a checkpoint of a training: `pretrained_checkpoint`, with
    `pretrained_checkpoint_dir` where it is none by itself.
    """

    name_or_path: Annotated[ModelPath | None, OnHub("model", revision="revision")] = Field(
        None, description="a model directory, a checkpoint or trial of any known layout, or a name on the hub"
    )
    revision: str | None = Field(None, description="commit, branch or tag of a hub model")
    trust_remote_code: bool = False
    tokenizer: Annotated[ModelPath | None, OnHub("tokenizer")] = Field(
        None, description="directory or hub name, if not the model's own"
    )
    pretrained_checkpoint_dir: LocalPath | list[LocalPath] | None = Field(
        None, description="a training's directory; of several trials, the one with the best result"
    )
    pretrained_checkpoint: Literal["latest"] | NonNegative | LocalPath | None = Field(
        None, description="latest, or a step of pretrained_checkpoint_dir (by default its best), or a directory"
    )
    pretrained_config_path: LocalPath | None = Field(
        None, description="config.yaml or config.json, where none lies with the checkpoint"
    )
    allow_random_weights: bool = Field(False, description="a new model, or one whose weights are as at the beginning")

    hidden_size: Positive = 768
    num_hidden_layers: Positive = 28
    num_attention_heads: Positive = 12
    intermediate_size: Positive = Field(3072, description="before SwiGLU's factor of 2/3")
    max_position_embeddings: Positive = 1024
    norm_eps: float = Field(1e-5, gt=0)
    rope_theta: float = Field(10000.0, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    vocab_size: int = Field(30522, ge=64, description="at most this many entries, when a tokenizer is trained")
    classifier_dropout: Fraction = 0.1
    classifier_pooling: Literal["cls", "mean"] | None = Field(
        None, description="what the head looks at, [CLS] or the mean of all tokens, if not the model's own choice"
    )

    @model_validator(mode="after")
    def _source_is_clear(self) -> ModelConfig:
        step = self.pretrained_checkpoint
        within = step == "latest" or isinstance(step, int)
        if within and self.pretrained_checkpoint_dir is None:
            raise ValueError(f"pretrained_checkpoint {step} is one of a training: name it in pretrained_checkpoint_dir")
        if self.name_or_path is not None and (step is not None or self.pretrained_checkpoint_dir is not None):
            raise ValueError("name_or_path and pretrained_checkpoint are two sources: leave one of them out")
        if not within and step is not None and self.pretrained_checkpoint_dir is not None:
            raise ValueError("pretrained_checkpoint names a directory, so pretrained_checkpoint_dir is left out")
        if isinstance(self.pretrained_checkpoint_dir, list) and within:
            raise ValueError(f"pretrained_checkpoint {step} is of one training: name one pretrained_checkpoint_dir")
        if self.is_new and not self.allow_random_weights:
            raise ValueError(
                "no model is named: expected name_or_path or pretrained_checkpoint; a new one with random weights "
                "needs allow_random_weights: true"
            )
        check_sizes(self, _SIZES, self.is_new)
        return self

    @property
    def is_new(self) -> bool:
        """Whether it is made, and not loaded."""
        given = (self.name_or_path, self.pretrained_checkpoint, self.pretrained_checkpoint_dir)
        return all(value is None for value in given)

    @model_serializer(mode="wrap")
    def _without_moot(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that settings that were written out can be read again: sizes stand beside no model that exists.

        And so that trials are the same as before there was a setting that they do not have.
        """
        values: dict[str, Any] = serialize(self)
        moot = set() if self.is_new else set(_SIZES)
        if self.classifier_pooling is None:
            moot.add("classifier_pooling")
        return {name: value for name, value in values.items() if name not in moot}


_SIZES = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "norm_eps", "rope_theta", "initializer_range",
}  # fmt: skip


class OptimizerConfig(Strict):
    """AdamW."""

    lr: float = Field(2e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    eps: float = Field(1e-8, gt=0)


class SchedulerConfig(Strict):
    name: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: float = Field(0.1, ge=0, description="a number of steps, or below 1 a share of all steps")


class TrainerConfig(Strict):
    """How to train; names as in `transformers.TrainingArguments`."""

    per_device_train_batch_size: Positive = 32
    per_device_eval_batch_size: Positive = 64
    gradient_accumulation_steps: Positive = 1
    num_train_epochs: float = Field(3.0, gt=0)
    max_steps: Positive | None = Field(None, description="ends before num_train_epochs, if set")
    gradient_clipping: float | None = Field(1.0, gt=0)
    mixed_precision: Literal["no", "auto", "bf16", "fp16"] = Field("no", description="auto: bf16 where it pays")
    gradient_checkpointing: bool = False
    cuda_graphs: bool = Field(True, description="starts the kernels of a step as one, on a single GPU in bf16")

    eval_strategy: Literal["epoch", "steps"] = "epoch"
    eval_steps: Positive | None = Field(None, description="with eval_strategy: steps")
    logging_steps: Positive = 10
    save_total_limit: Positive = Field(2, description="checkpoints to keep; the best and the newest always stay")
    keep: Keep | None = Field(
        None,
        description="once the trial is done, keep its best model without optimizer (best, the default), its last "
        "checkpoint as well (last), or all that save_total_limit allows",
    )
    metric_for_best_model: str | None = Field(None, description="and is the score; the task's own metric by default")
    greater_is_better: bool | None = Field(None, description="as suits metric_for_best_model by default")
    early_stopping_patience: Positive | None = Field(None, description="evaluations without improvement")
    early_stopping_threshold: float = Field(0.0, ge=0)
    class_weights: Literal["balanced"] | None = Field(
        None, description="balanced: in the training loss each class counts as much as the next, however rare it is"
    )

    use_cpu: bool = False
    dataloader_num_workers: NonNegative = 0

    @model_validator(mode="after")
    def _evaluation(self) -> TrainerConfig:
        if (self.eval_strategy == "steps") != (self.eval_steps is not None):
            raise ValueError("eval_steps goes with eval_strategy: steps, and only with it")
        return self

    @model_validator(mode="after")
    def _precision(self) -> TrainerConfig:
        if self.use_cpu and self.mixed_precision == "fp16":
            raise ValueError("mixed_precision is fp16, which needs a GPU, and use_cpu is true: bf16 works without")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what is not set and came later: trials keep their ids, and older code can read the rest."""
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name not in _LATER or value is not None}


_LATER = ("class_weights", "keep")
