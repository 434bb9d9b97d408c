"""Settings of `neobert glue`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from neobert.config.base import Strict, nearest
from neobert.config.deepspeed import DeepSpeedConfig, check_agreement
from neobert.config.deepspeed_file import facts_of_batches, facts_of_updates
from neobert.config.hub import HubName, OnHub
from neobert.config.paths import LocalPath
from neobert.config.sections import (
    ModelConfig,
    OptimizerConfig,
    Positive,
    SchedulerConfig,
    TrainerConfig,
    greater_is_better,
)
from neobert.data.glue_tasks import TASKS
from neobert.data.glue_tasks import GlueTask as TaskSpec

GlueTask = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]


RUN_GLUE = {
    "model_name_or_path": "model.name_or_path", "model_revision": "model.revision", "tokenizer_name": "model.tokenizer",
    "dataset_name": "data.hub", "max_seq_length": "data.max_length", "learning_rate": "optimizer.lr",
    "adam_beta1": "optimizer.betas", "adam_beta2": "optimizer.betas", "adam_epsilon": "optimizer.eps",
    "lr_scheduler_type": "scheduler.name", "warmup_ratio": "scheduler.warmup_steps",
    "max_grad_norm": "trainer.gradient_clipping", "bf16": "trainer.mixed_precision", "fp16": "trainer.mixed_precision",
    "evaluation_strategy": "trainer.eval_strategy", "save_strategy": "trainer.eval_strategy",
    "save_steps": "trainer.eval_steps", "no_cuda": "trainer.use_cpu", "output_dir": "--output-dir",
}  # fmt: skip
"""What run_glue calls settings whose last word is another one here."""


class GlueData(Strict):
    """Where the examples come from: exactly one of `dir`, `hub`, `train_file` (own files), or `generated`."""

    dir: LocalPath | None = Field(None, description="GLUE directory: TASK/{train,dev,test}.tsv")
    hub: Annotated[str | None, OnHub("dataset", config="task_name")] = Field(
        None, description="data set on the hub in the layout of nyu-mll/glue"
    )
    train_file: LocalPath | None = Field(None, description="csv, tsv, json or jsonl; likewise the next two")
    validation_file: LocalPath | None = None
    test_file: LocalPath | None = None
    generated: Positive | None = Field(None, description="that many training examples from the built-in grammar")

    labels: list[str] | None = Field(
        None, min_length=2, description="own files without task_name: the classes, in order"
    )
    max_length: int = Field(128, ge=8, description="tokens an example; longer ones are cut")
    max_train_samples: Positive | None = None
    max_eval_samples: Positive | None = None
    max_predict_samples: Positive | None = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        names = [label.strip() for label in labels or ()]
        if names != (labels or []) or "" in names or len(set(names)) < len(names):
            raise ValueError(f"expected different names without blanks around them, found {labels}")
        return labels

    @model_validator(mode="after")
    def _one_source(self) -> GlueData:
        given = [name for name in ("dir", "hub", "train_file", "generated") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"expected exactly one of dir, hub, train_file, generated; found {found}")
        if (self.train_file is None) != (self.validation_file is None):
            raise ValueError("train_file and validation_file go together")
        if self.test_file and not self.train_file:
            raise ValueError("test_file goes with train_file and validation_file")
        return self


class GlueConfig(Strict):
    """Fine-tunes an encoder on one GLUE task (https://gluebenchmark.com) and scores it on the task's dev set.

    Without `task_name` the classes are those of one's own files (a float label makes it a regression).
    """

    may_change = frozenset({"trainer.dataloader_num_workers", "trainer.cuda_graphs", "trainer.keep"})
    elsewhere = RUN_GLUE

    task_name: GlueTask | None = Field(None, description="may be left out with files of one's own")
    do_train: bool = Field(True, description="false: a model with a head that is trained already is only looked at")
    do_eval: bool = Field(True, description="false: the last weights are the result, and no score")
    do_predict: bool | None = Field(
        None, description="say what each example of the test set is; by default with data.test_file"
    )
    seed: int = Field(42, ge=0, lt=2**32)
    model: ModelConfig
    data: GlueData
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    trainer: TrainerConfig = TrainerConfig()
    deepspeed: DeepSpeedConfig | None = Field(None, description="without it, every process has all weights and states")

    @model_validator(mode="after")
    def _task_or_files(self) -> GlueConfig:
        if self.task_name is None and self.data.train_file is None:
            raise ValueError("task_name is required, unless data.train_file names files of your own")
        if self.task_name is not None and self.data.labels is not None:
            raise ValueError("data.labels is for own files without task_name; a GLUE task fixes its labels")
        if self.task_name is not None:
            self.selection(TASKS[self.task_name])
        return self

    @model_validator(mode="after")
    def _something_to_do(self) -> GlueConfig:
        if not (self.do_train or self.do_eval or self.predicts):
            raise ValueError("nothing is left to do: one of do_train, do_eval and do_predict must be true")
        if not self.do_train and self.model.is_new:
            raise ValueError("do_train: false needs a model: model.name_or_path or model.pretrained_checkpoint")
        if self.do_predict and self.data.train_file is not None and self.data.test_file is None:
            raise ValueError("do_predict needs data.test_file")
        if not self.do_eval:
            unused = [name for name in ("metric_for_best_model", "early_stopping_patience")
                      if getattr(self.trainer, name) is not None]  # fmt: skip
            if unused:
                raise ValueError(f"trainer.{unused[0]} needs evaluations: leave do_eval as it is")
        return self

    @property
    def predicts(self) -> bool:
        return self.data.test_file is not None if self.do_predict is None else self.do_predict

    def more_on_hub(self) -> Iterator[HubName]:
        """The test sets that lie elsewhere than the task's other data: MNLI's model is asked about AX."""
        if self.data.hub is None or self.task_name is None or not self.predicts:
            return
        for test in TASKS[self.task_name].tests:
            if test.config is not None:
                yield HubName("dataset", self.data.hub, config=test.config)

    @model_validator(mode="after")
    def _deepspeed_agrees(self) -> GlueConfig:
        if self.deepspeed is not None:
            check_agreement(
                self.deepspeed,
                facts_of_batches(self.trainer, None) | facts_of_updates(self.optimizer, self.scheduler, None),
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A trial without DeepSpeed is the same trial as before there was such a section."""
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "deepspeed" or value is not None}

    def selection(self, task: TaskSpec) -> tuple[str, bool]:
        """The metric that chooses the best checkpoint, and whether more of it is better; raises `ValueError`."""
        metric = self.trainer.metric_for_best_model or task.selects
        if metric not in task.reported:
            known = nearest(metric, task.reported)
            raise ValueError(f"trainer.metric_for_best_model: {metric!r} is not measured on {task.name}{known}")
        better = greater_is_better(metric)
        if self.trainer.greater_is_better not in (None, better):
            raise ValueError(f"trainer.greater_is_better: must be {str(better).lower()} for {metric}, or left out")
        return metric, better
