"""Settings of `neobert glue`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from neobert.config.base import KeyPath, Strict, nearest
from neobert.config.deepspeed import DeepSpeedConfig, check_agreement
from neobert.config.deepspeed_file import facts_of_batches, facts_of_updates
from neobert.config.glue_data import GlueData
from neobert.config.hub import HubName
from neobert.config.sections import ModelConfig, OptimizerConfig, SchedulerConfig, TrainerConfig, greater_is_better
from neobert.data.glue_tasks import OF_NUMBERS, SCORE, TASKS, measured_on_classes
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


_ELSEWHERE = {"mcc": "matthews_correlation", "f1_macro": "macro_f1", "acc": "accuracy", "mse": "loss"}
"""What scikit-learn, `evaluate` and others call metrics."""


class GlueConfig(Strict):
    """Fine-tunes an encoder on one GLUE task (https://gluebenchmark.com) and scores it on the task's dev set.

    Without `task_name` the training file's labels are the classes (fractions make it a regression).
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
        if self.task_name is None and not self.data.is_own:
            raise ValueError("task_name is required, unless data.train_file names files of your own")
        return self

    @model_validator(mode="after")
    def _something_to_do(self) -> GlueConfig:
        if not (self.do_train or self.do_eval or self.predicts):
            raise ValueError("nothing is left to do: one of do_train, do_eval and do_predict must be true")
        if not self.do_train and self.model.is_new:
            raise ValueError("do_train: false needs a model: model.name_or_path or model.pretrained_checkpoint")
        if not self.do_eval:
            needs_dev_set = ["early_stopping_patience"]
            if self.do_train or self.data.test_file is None:  # whose labels, if there are any, are scored
                needs_dev_set.insert(0, "metric_for_best_model")
            unused = [name for name in needs_dev_set if getattr(self.trainer, name) is not None]
            if unused:
                raise ValueError(f"trainer.{unused[0]} needs evaluations: leave do_eval as it is")
        return self

    @model_validator(mode="after")
    def _metric_is_measured(self) -> GlueConfig:
        """Checked before own files are read: otherwise each trial of a run would fail after it has waited."""
        metric, data = self.trainer.metric_for_best_model, self.data
        if self.task_name is not None:
            task = TASKS[self.task_name]
            # Own files are one dev set, whatever the task has.
            self.selection(replace(task, dev_sets=TaskSpec.dev_sets) if data.is_own else task)
            return self
        names_classes = data.labels is not None or data.problem == "regression"
        if metric is not None and metric.startswith("f1_") and metric not in _ELSEWHERE and not names_classes:
            raise ValueError(
                f"trainer.metric_for_best_model: {metric!r} is the F1 of one class, which can be checked only if "
                "data.labels lists the classes"
            )
        self._check_metric(metric or SCORE, self._measurable(), "own files")
        return self

    def _measurable(self) -> tuple[str, ...]:
        """What may be measured on own files, as far as the settings tell."""
        data = self.data
        classes = measured_on_classes(data.labels or ()) if data.problem != "regression" else ()
        numbers = OF_NUMBERS if data.labels is None and data.problem != "classification" else ()
        return (SCORE, *classes, *numbers, "loss")

    @model_validator(mode="after")
    def _classes_to_weigh(self) -> GlueConfig:
        is_task = self.task_name is not None and TASKS[self.task_name].is_regression
        if self.trainer.class_weights is not None and (is_task or self.data.problem == "regression"):
            raise ValueError("trainer.class_weights: a regression has no classes. Leave it out")
        return self

    @model_validator(mode="after")
    def _length_fits(self) -> GlueConfig:
        longest = self.model.max_position_embeddings
        if self.model.is_new and self.data.max_length > longest:
            raise ValueError(
                f"data.max_length: is {self.data.max_length}, but model.max_position_embeddings is {longest}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_evaluate_on(cls, settings: Any) -> Any:
        """Sets do_eval to false by default where a trained model predicts a test file, and no other file is named."""
        data = settings.get("data") if isinstance(settings, dict) and settings.get("do_train") is False else None
        alone = isinstance(data, dict) and data.get("test_file") and not data.get("validation_file")
        return {"do_eval": False, **settings} if alone else settings

    @model_validator(mode="after")
    def _files_that_are_needed(self) -> GlueConfig:
        if not self.data.is_own:
            return self
        for file, key, is_needed in (
            ("train_file", "do_train", self.do_train),
            ("validation_file", "do_eval", self.do_eval),
            ("test_file", "do_predict", self.predicts),
        ):
            if is_needed and getattr(self.data, file) is None:
                also = "" if key == "do_predict" else f" (true by default; {key}: false does without)"
                raise ValueError(f"{key} needs data.{file}{also}")
        return self

    @model_validator(mode="after")
    def _classes_of_a_task(self) -> GlueConfig:
        """Refuse settings that change what a GLUE task fixes. data.labels may name the numbers in own files."""
        if self.task_name is None:
            return self
        data, task = self.data, TASKS[self.task_name]
        if data.problem is not None:
            kind = "regression" if task.is_regression else "classification"
            raise ValueError(f"data.problem is for own files without task_name: {task.name} is a {kind}")
        if data.labels is not None and (not data.is_own or task.is_regression):
            raise ValueError(f"data.labels is for own files with classes; {task.name} fixes its own labels here")
        if data.labels is not None and sorted(data.labels) != sorted(task.labels):
            expected = ", ".join(task.labels)
            raise ValueError(
                f"data.labels: expected {task.name}'s {expected}, in the order of the numbers in the files"
            )
        if data.text_columns is not None and len(data.text_columns) != len(task.sentences):
            raise ValueError(f"data.text_columns: expected {len(task.sentences)} for {task.name}, "
                             f"found {len(data.text_columns)}")  # fmt: skip
        return self

    def unused_paths(self) -> frozenset[KeyPath]:
        used = {"train_file": self.do_train, "validation_file": self.do_eval, "test_file": self.predicts}
        return frozenset(("data", file) for file, is_used in used.items() if not is_used)

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
        """The metric that chooses the best checkpoint and is the score, and whether more of it is better.

        Raises `ValueError` for one that is not measured on this task.
        """
        metric = self.trainer.metric_for_best_model or task.selects
        self._check_metric(metric, task.reported, task.name)
        return metric, greater_is_better(metric)

    def _check_metric(self, metric: str, measured: Collection[str], what: str) -> None:
        if metric not in measured:
            known = nearest(_ELSEWHERE.get(metric, metric.removeprefix("eval_")), measured)
            raise ValueError(f"trainer.metric_for_best_model: {metric!r} is not measured on {what}{known}")
        better = greater_is_better(metric)
        if self.trainer.greater_is_better not in (None, better):
            raise ValueError(f"trainer.greater_is_better: must be {str(better).lower()} for {metric}, or left out")
