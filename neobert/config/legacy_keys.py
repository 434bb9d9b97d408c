"""What becomes of each key of older NeoBERT code (0.0.2 to 0.1.4, and what came shortly after), for pretraining.

One table, in their order. `docs/legacy.md` shows it to users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[Any, Any] | None

ANY: tuple[Any, ...] = (object(),)
"""Stands for all values."""


@dataclass(frozen=True)
class Key:
    """What becomes of one old key. Values that are neither `left_out` nor translated are errors that say `instead`."""

    to: str = ""
    """The key that says the same here (or, of an `alias`, the old key that it was another name of)."""
    alias: bool = False
    values: Values = None
    """Its values here, by the old ones; None: they are the same."""
    left_out: tuple[Any, ...] = ()
    """Old values that nothing has to be said for."""
    why: str = ""
    """Nothing has to be said for them, because..."""
    instead: str = ""
    default: Any = ...
    """The old default as a value of `to`, where ours is another one."""


def _same(key: str, default: Any = ...) -> dict[str, Key]:
    return {key: Key(key, default=default)}


def _moved(key: str, to: str, values: Values = None, instead: str = "", **more: Any) -> dict[str, Key]:
    return {key: Key(to, values=values, instead=instead, **more)}


def _alias(key: str, of: str, values: Values = None, **more: Any) -> dict[str, Key]:
    return {key: Key(of, alias=True, values=values, **more)}


def _left_out(keys: str, why: str, only: tuple[Any, ...] = ANY, instead: str = "") -> dict[str, Key]:
    return {key: Key(left_out=only, why=why, instead=instead) for key in keys.split()}


_TOKENIZERS = "the tokenizer says it"
_NOT_DONE = "this is not done here"
_OTHER_TASK = "it is of another task"
_NO_VARIANT = "there is one architecture here: rotary positions, RMSNorm, SwiGLU, no dropout"
_ON_DISK = (
    "data sets on disk are not read. Make shards of the text with `neobert preprocess`, and name them on the command "
    "line: dataset.path=SHARDS; or name its files: dataset.path=null dataset.files=[...] dataset.streaming=true"
)
_NO_SLICE = "parts of splits have no equivalent; name a whole split"
_BY_STEPS = "it is done every so many steps"
_CLIP = "attention is not clipped here"
_PRECISION = {"bf16": "bf16", "no": "no", "fp32": "no", True: "bf16", False: "no"}
_NO_FP16 = "expected bf16 or no: the loss is not scaled here, which fp16 needs"
_WANDB = "nothing goes to W&B: figures are in metrics.jsonl and tensorboard/"

KEYS: dict[str, Key] = {
    **_left_out("task", "the command says it", ("pretraining",), "only files of pretraining are read"),
    **_same("seed", 0),
    **_alias("mixed_precision", "trainer.mixed_precision"),
    **_left_out("debug", "it is off", (False,), _NOT_DONE),
    **_left_out("use_deepspeed", "it turned nothing on; deepspeed: {zero_stage: 2} does here", (True, False), ""),
    **_left_out("accelerate_config_file", "the recipe says how processes are started", (None,),
                "the recipe says how processes are started: resources and deepspeed"),
    **_left_out("config_path", "--config says it"),
    **_left_out("pretraining_metadata", "there is none", ({}, None), "it was for evaluations"),
    **_left_out("mteb_task_type mteb_batch_size mteb_pooling mteb_overwrite_results pretrained_checkpoint",
                _OTHER_TASK),
    **_left_out("glue contrastive", _OTHER_TASK),
    # -- model ----------------------------------------------------------------------------------------------------
    **_left_out("model.name", "it was a label", (None,),
                "it was a label; model.name_or_path begins from the weights of a model"),
    **_same("model.hidden_size"),
    **_same("model.num_hidden_layers", 12),
    **_same("model.num_attention_heads"),
    **_same("model.intermediate_size"),
    **_same("model.max_position_embeddings", 512),
    **_same("model.norm_eps"),
    **_left_out("model.vocab_size model.pad_token_id", _TOKENIZERS),
    **_left_out("model.rope model.rms_norm", _NO_VARIANT, (True,), _NO_VARIANT),
    **_left_out("model.hidden_act", _NO_VARIANT, ("swiglu", "SwiGLU"), _NO_VARIANT),
    **_left_out("model.dropout_prob", _NO_VARIANT, (0,), _NO_VARIANT),
    **_left_out("model.ngpt", _NO_VARIANT, (False,), _NO_VARIANT),
    **_left_out("model.base_scale", "it was nGPT's", (960**-0.5,), "it was nGPT's, and there is no nGPT here"),
    **_moved("model.embedding_init_range", "model.initializer_range", default=round(0.02 / math.sqrt(3), 6)),
    **_moved("model.decoder_init_range", "model.initializer_range"),
    **_left_out("model.classifier_init_range", "there is no classifier", (0.02,), "pretraining has no classifier"),
    **_moved("model.attn_backend", "model.attn_backend", {"sdpa": "sdpa", "flash_attn_varlen": "varlen"},
             "expected sdpa or flash_attn_varlen"),
    **_moved("model.flash_attention", "model.attn_backend", {True: "auto", False: "sdpa"}),
    **_moved("model.use_flash_attention", "model.attn_backend", {True: "auto", False: "sdpa"}),
    **_moved("model.xformers_attention", "model.attn_backend", {True: "auto", False: "sdpa"}),
    **_left_out("model.kernel_backend", "kernels are PyTorch's", ("auto", "torch"), "there are no Liger kernels here"),
    **_left_out("model.from_hub", "it is off", (False,), "name the model in model.name_or_path"),
    # -- data -----------------------------------------------------------------------------------------------------
    **_moved("dataset.name", "dataset.hub"),
    **_moved("dataset.config", "dataset.hub_config", left_out=(None,), why="it is not set"),
    **_left_out("dataset.path", "it is not set", ("", None), _ON_DISK),
    **_alias("dataset.path_to_disk", "dataset.path"),
    **_moved("dataset.streaming", "dataset.streaming", {True: True},
             "data of the hub are streamed (which resumes exactly: dataset.streaming=true), or made into shards by "
             "`neobert preprocess` first", default=True),
    **_same("dataset.max_seq_length", 512),
    **_moved("dataset.text_column", "dataset.text_column", left_out=(None,), why="it is not set: text"),
    **_alias("dataset.column", "dataset.text_column"),
    **_moved("dataset.train_split", "dataset.split", left_out=(None,), why="it is not set: train", instead=_NO_SLICE),
    **_moved("dataset.eval_split", "dataset.validation.split", left_out=(None,), why="nothing is held out",
             instead=_NO_SLICE),
    **_moved("dataset.eval_samples", "dataset.eval_samples", left_out=(None,), why="it is not set"),
    **_left_out("dataset.validation_split", "it is not set", (None,),
                "a stream has no share to hold out: name held-out text in dataset.validation, or make shards with "
                "`neobert preprocess validation_fraction=...`"),
    **_same("dataset.shuffle_buffer_size"),
    **_same("dataset.num_workers"),
    **_left_out("dataset.num_proc", "dataset.num_workers processes tokenise", (4,),
                "text is tokenised by dataset.num_workers processes"),
    **_left_out("dataset.pin_memory", "where it helps it is done", (False, True), ""),
    **_left_out("dataset.persistent_workers", "they live as long as the training", (True,), _NOT_DONE),
    **_left_out("dataset.prefetch_factor", "it is not set", (None,), "PyTorch's default is what counts"),
    **_left_out("dataset.cache_dir", "it is not set", (None,), "set HF_HOME in the environment"),
    **_left_out("dataset.trust_remote_code", "it is off", (False,), "code of data sets is never run"),
    **_left_out("dataset.pre_tokenize", "it is off", (False,), "run `neobert preprocess` first"),
    **_left_out("dataset.pre_tokenize_output", "it is not set", (None,), "it is `output` of `neobert preprocess`"),
    **_left_out("dataset.load_all_from_disk dataset.force_redownload", "it is off", (False,), _ON_DISK),
    **_left_out("dataset.min_length", _OTHER_TASK, (5,), "short texts are packed, and not left out"),
    **_left_out("dataset.alpha", _OTHER_TASK, (1,), "give sources a weight: dataset.sources"),
    **_left_out("dataset.pretraining_prob", _OTHER_TASK),
    **_left_out("dataset.streaming_read_retries", "libraries do it", (4,), "libraries decide how often they retry"),
    **_left_out("dataset.streaming_read_retry_backoff_seconds", "libraries do it", (5,), "libraries decide it"),
    **_left_out("dataset.streaming_read_retry_max_backoff_seconds", "libraries do it", (60,), "libraries decide it"),
    # -- tokenizer ------------------------------------------------------------------------------------------------
    **_moved("tokenizer.path", "tokenizer.name_or_path", left_out=(None, ""), why="it is not set"),
    **_moved("tokenizer.name", "tokenizer.name_or_path", default="bert-base-uncased"),
    **_alias("tokenizer.tokenizer_name_or_path", "tokenizer.name"),
    **_alias("dataset.tokenizer_name", "tokenizer.name"),
    **_same("tokenizer.trust_remote_code"),
    **_same("tokenizer.revision"),
    **_left_out("tokenizer.max_length", "dataset.max_seq_length says it", (512,),
                "dataset.max_seq_length is what counts: leave this out, or set both alike"),
    **_left_out("tokenizer.vocab_size", _TOKENIZERS),
    **_left_out("tokenizer.padding", _OTHER_TASK, ("max_length",), "datacollator says how rows are filled"),
    **_left_out("tokenizer.truncation", "long documents become several pieces, and nothing is cut off", (True, False)),
    **_left_out("tokenizer.allow_special_token_rewrite", "it is off", (False,), "the tokenizer must have [MASK]"),
    # -- collator -------------------------------------------------------------------------------------------------
    **_same("datacollator.mlm_probability", 0.15),
    **_same("datacollator.mask_all"),
    **_same("datacollator.pack_sequences", False),
    **_moved("datacollator.pad_to_multiple_of", "datacollator.pad_to_multiple_of", left_out=(None,),
             why="it is not set"),
    **_moved("datacollator.max_length", "datacollator.max_tokens", left_out=(None,), why="it is not set"),
    # -- optimizer ------------------------------------------------------------------------------------------------
    **_moved("optimizer.name", "optimizer.name",
             {"adamw": "adamw", **dict.fromkeys(("muonclip", "muon-clip", "muon_clip"), "muon")},
             "expected adamw or muonclip; with weight_decay 0, adam is adamw"),
    **_same("optimizer.lr", 1e-4),
    **_same("optimizer.weight_decay", 0.01),
    **_same("optimizer.betas", [0.9, 0.999]),
    **_same("optimizer.eps"),
    **{name: key for part in ("lr", "weight_decay", "betas", "eps")
       for name, key in _alias(f"optimizer.hparams.{part}", f"optimizer.{part}").items()},
    **_moved("optimizer.muon_config.muon_beta", "optimizer.muon.momentum"),
    **_moved("optimizer.muon_config.ns_steps", "optimizer.muon.ns_steps"),
    **_moved("optimizer.muon_config.nesterov", "optimizer.muon.nesterov"),
    **_moved("optimizer.muon_config.norm_factor", "optimizer.muon.lr_scale",
             {"match_rms_adamw": "match_rms_adamw", "muon_reference": "original", "original": "original"},
             "updates are scaled as match_rms_adamw or muon_reference has it"),
    **_left_out("optimizer.muon_config.muon_decay", "optimizer.weight_decay says it", (),
                "Muon and AdamW have one weight decay here, optimizer.weight_decay: set both alike"),
    **_left_out("optimizer.muon_config.enable_clipping", _CLIP, (False,),
                "MuonClip has no equivalent: enable_clipping: false is Muon, which there is"),
    **_left_out("optimizer.muon_config.clipping_threshold optimizer.muon_config.clipping_alpha "
                "optimizer.muon_config.clipping_warmup_steps optimizer.muon_config.clipping_interval "
                "optimizer.muon_config.clipping_qk_chunk_size optimizer.muon_config.clipping_layers_mapping "
                "optimizer.muon_config.capture_last_microbatch_only", _CLIP),
    **_left_out("optimizer.muon_config.detect_anomalies", "it is off", (False,), _NOT_DONE),
    **_left_out("optimizer.muon_config.orthogonalization", "it is the same here", ("newton_schulz",),
                "expected newton_schulz, the one there is here"),
    **_alias("optimizer.muon_config.algorithm", "optimizer.muon_config.orthogonalization", left_out=(None,),
             why="it is not set"),
    **_alias("optimizer.muon_config.polar_express", "optimizer.muon_config.orthogonalization",
             {True: "polar_express", False: "newton_schulz"}, left_out=(None,), why="it is not set"),
    **_left_out("optimizer.muon_config.param_policy", "it is the same here", ("hidden_2d", "transformer_only"),
                "Muon is for the matrices of the blocks: hidden_2d"),
    **_left_out("optimizer.muon_config", "it is not set", (None, {})),
    # -- schedule -------------------------------------------------------------------------------------------------
    **_moved("scheduler.name", "scheduler.name", {"cosine": "cosine", "linear": "linear"},
             "expected cosine or linear"),
    **_same("scheduler.warmup_steps", 10_000),
    **_moved("scheduler.warmup_percent", "scheduler.warmup_ratio", left_out=(None,), why="it is not set"),
    **_left_out("scheduler.total_steps scheduler.decay_steps", "it is not set", (None,),
                "the way down ends with the last step: leave this out, or set it to trainer.max_steps"),
    **_left_out("scheduler.decay_percent", "it is not set", (None,),
                "the way down ends with the last step: leave this out, or set it to 100"),
    **_same("scheduler.final_lr_ratio"),
    **_left_out("scheduler.constant_steps", "it is off", (0, None), "scheduler.name=wsd stays at the top for long"),
    **_left_out("scheduler.num_cycles", "the way down is one half of a cosine", (0.5,), "there is one way down"),
    # -- training -------------------------------------------------------------------------------------------------
    **_same("trainer.per_device_train_batch_size"),
    **_same("trainer.per_device_eval_batch_size", 32),
    **_alias("trainer.train_batch_size", "trainer.per_device_train_batch_size", left_out=(None,), why="it is not set"),
    **_alias("trainer.eval_batch_size", "trainer.per_device_eval_batch_size", left_out=(None,), why="it is not set"),
    **_same("trainer.gradient_accumulation_steps"),
    **_same("trainer.max_steps", 1_000_000),
    **_same("trainer.save_steps", 10_000),
    **_same("trainer.eval_steps", 10_000),
    **_same("trainer.logging_steps", 100),
    **_alias("wandb.log_interval", "trainer.logging_steps"),
    **_same("trainer.save_total_limit", 3),
    **_alias("trainer.max_ckpt", "trainer.save_total_limit", left_out=(None,), why="it is not set"),
    **_moved("trainer.mixed_precision", "trainer.mixed_precision", _PRECISION, _NO_FP16, default="bf16"),
    **_alias("trainer.bf16", "trainer.mixed_precision", {True: "bf16", False: "no"}),
    **_left_out("trainer.fp16", "it is off", (False,), _NO_FP16),
    **_same("trainer.tf32"),
    **_same("trainer.gradient_checkpointing"),
    **_same("trainer.gradient_clipping", None),
    **_alias("trainer.max_grad_norm", "trainer.gradient_clipping"),
    **_same("trainer.torch_compile"),
    **_left_out("trainer.torch_compile_dynamic", "it is not set", (None,), "PyTorch decides it"),
    **_left_out("trainer.torch_compile_backend", "it is the same here", ("inductor",), "expected inductor"),
    **_same("trainer.use_cpu"),
    **_alias("trainer.seed", "seed"),
    **_alias("trainer.learning_rate", "optimizer.lr"),
    **_alias("trainer.warmup_steps", "scheduler.warmup_steps"),
    **_left_out("trainer.output_dir trainer.dir", "--output-dir says it"),
    **_left_out("trainer.overwrite_output_dir", "a directory is resumed, and never overwritten", (True, False)),
    **_moved("trainer.resume_from_checkpoint", "trainer.resume_from_checkpoint",
             {True: "auto", "true": "auto", "latest": "latest", "auto": "auto"},
             "training states of older code cannot be resumed: begin from the weights with model.name_or_path",
             left_out=(None, False), why="a trial is resumed in any case, and a new --output-dir begins anew"),
    **_left_out("trainer.num_train_epochs", "trainer.max_steps says how long", (3,), "trainer.max_steps says how long"),
    **_left_out("trainer.eval_strategy trainer.save_strategy", _BY_STEPS, ("steps",), _BY_STEPS),
    **_left_out("trainer.eval_max_batches", "it is not set", (None,), "dataset.eval_samples limits it"),
    **_left_out("trainer.early_stopping", "it is off", (0,), _NOT_DONE),
    **_left_out("trainer.metric_for_best_model", "it is not set", (None,), "the newest checkpoints are kept"),
    **_left_out("trainer.greater_is_better", "it was not used", (True,), "the newest checkpoints are kept"),
    **_left_out("trainer.load_best_model_at_end", "it is off", (False,), "the newest checkpoints are kept"),
    **_left_out("trainer.save_model", "it is done", (True,), "the model is always saved"),
    **_left_out("trainer.dataloader_num_workers", "dataset.num_workers says it", (0,), "it is dataset.num_workers"),
    **_left_out("trainer.enforce_full_packed_batches", "batches are always full", (True, False)),
    **_left_out("trainer.masked_logits_only_loss", "it is done", (True,), "the loss is the same: leave it out"),
    **_left_out("trainer.log_train_accuracy", "it is off", (False,), "accuracy is that of held-out text"),
    **_left_out("trainer.log_grad_norm", "it is done", (True,), "it is always logged: leave it out"),
    **_left_out("trainer.log_weight_norms", "it is not done", (True, False)),
    **_left_out("trainer.disable_tqdm trainer.remove_unused_columns", "there is none", (True, False)),
    **_left_out("trainer.report_to", _WANDB, ([], None, "none", ["none"], "tensorboard", ["tensorboard"]), _WANDB),
    **_left_out("trainer.run_name", "--output-dir names the trial"),
    # -- W&B ------------------------------------------------------------------------------------------------------
    **_left_out("wandb.enabled", _WANDB, (False,), _WANDB),
    **_left_out("wandb.project wandb.entity wandb.name wandb.tags wandb.mode wandb.watch wandb.resume wandb.dir",
                _WANDB),
    **_left_out("variables", "there are none", (None, {}), "write each value where $variables names it"),
}  # fmt: skip
