"""The nine GLUE tasks (https://gluebenchmark.com/tasks) in one frozen table: the only place that knows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

OF_CLASSES = ("accuracy", "balanced_accuracy", "f1", "macro_f1", "precision", "recall", "matthews_correlation")
OF_NUMBERS = ("pearson", "spearmanr")
SCORE = "score"
"""The mean of a task's own metrics, where a metric is named."""


def measured_on_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """The metrics of a classification; `f1_LABEL` is that of a single class."""
    return (*OF_CLASSES, *(f"f1_{label}" for label in labels))


@dataclass(frozen=True)
class Tsv:
    """How a task's files look in the layout of download_glue_data.py."""

    folder: str
    sentences: tuple[str, ...]
    label: str
    header: tuple[str, ...]
    """The columns of train.tsv as GLUE distributes it. A file may have others, as long as those above are there."""
    has_header: bool = True
    known_broken_rows: int = 0
    """Rows without all columns that GLUE's own file has; every reader skips them, more than these are an error."""


@dataclass(frozen=True)
class Unlabelled:
    """A test set, whose labels the benchmark keeps to itself."""

    name: str
    """Of its file in a submission, without `.tsv`."""
    file: str
    """Its TSV file in the task's folder; of AX, with the folders in which it may lie."""
    split: str
    """On the hub."""
    rows: int
    config: str | None = None
    """On the hub, where it is not the task's."""


@dataclass(frozen=True)
class GlueTask:
    """One task; classes stand in the order of the Hugging Face data set, which is their number.

    (GLUE's processors of old had MNLI as contradiction, entailment, neutral: a model trained in that order scores
    below chance here, and the other way round.)
    """

    name: str
    sentences: tuple[str, ...]
    """The text columns of the Hugging Face data set: one, or two for pairs."""
    labels: tuple[str, ...]
    """Class names; none for a regression."""
    metrics: tuple[str, ...]
    """Computed on each dev set. Their mean over all dev sets is the task's score, as the benchmark averages them."""
    tsv: Tsv | None = None
    codes: tuple[str, ...] = ()
    """How the TSV files write the classes, where not by name."""
    dev_sets: tuple[tuple[str, str, str], ...] = (("", "dev", "validation"),)
    """For each: the suffix of its metrics, its TSV file, its split on the hub."""
    tests: tuple[Unlabelled, ...] = ()
    limits: tuple[float, float] | None = None
    """Lowest and highest value of a regression's label."""
    selects: str = SCORE
    """What the best checkpoint is chosen by, and the result's score, where the settings name no metric."""

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def scored(self) -> tuple[str, ...]:
        """The metrics whose mean is the task's score: `("accuracy", "accuracy_mm")` for MNLI."""
        return tuple(metric + suffix for suffix, _, _ in self.dev_sets for metric in self.metrics)

    def parts(self, metric: str) -> tuple[str, ...]:
        """What a metric is the mean of: itself, or for the score the task's own metrics on all its dev sets."""
        return self.scored if metric == SCORE else (metric,)

    def title(self, metric: str) -> str:
        """What results call a metric: the score by its parts, as `accuracy+f1`."""
        return "+".join(self.parts(metric))

    @property
    def measured(self) -> tuple[str, ...]:
        """What is computed on each dev set: the task's metrics, and with classes what else is usually told of them."""
        usual = () if self.is_regression else measured_on_classes(self.labels)
        return tuple(dict.fromkeys((*self.metrics, *usual)))

    @property
    def reported(self) -> tuple[str, ...]:
        """Everything an evaluation yields, any of which may choose the best checkpoint."""
        suffixes = [suffix for suffix, _, _ in self.dev_sets]
        return (SCORE, *(name + suffix for suffix in suffixes for name in (*self.measured, "loss")))

    def said(self, number: float) -> str:
        """A prediction as the benchmark takes it."""
        if not self.is_regression:
            return (self.codes or self.labels)[int(number)]
        low, high = self.limits or (-math.inf, math.inf)
        return f"{min(max(number, low), high):.3f}"


AX_FILES = "diagnostic/diagnostic, AX/AX, AX/test"
"""GLUE's diagnostic set, which MNLI's model is asked about: where its TSV file lies in one or the other download."""

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_PARSES = ("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse")

_TASKS = (
    GlueTask(
        "cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",), codes=("0", "1"),
        tests=(Unlabelled("CoLA", "test", "test", 1063),),
        tsv=Tsv("CoLA", ("sentence",), "label", ("source", "label", "mark", "sentence"), has_header=False),
    ),
    GlueTask(
        "sst2", ("sentence",), ("negative", "positive"), ("accuracy",), codes=("0", "1"),
        tests=(Unlabelled("SST-2", "test", "test", 1821),),
        tsv=Tsv("SST-2", ("sentence",), "label", ("sentence", "label")),
    ),
    GlueTask(
        "mrpc", _PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1"), codes=("0", "1"),
        tests=(Unlabelled("MRPC", "test", "test", 1725),),
        tsv=Tsv("MRPC", ("#1 String", "#2 String"), "Quality",
                ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")),
    ),
    GlueTask(
        "stsb", _PAIR, (), ("pearson", "spearmanr"), limits=(0.0, 5.0),
        tests=(Unlabelled("STS-B", "test", "test", 1379),),
        tsv=Tsv("STS-B", _PAIR, "score",
                ("index", "genre", "filename", "year", "old_index", "source1", "source2", *_PAIR, "score")),
    ),
    GlueTask(
        "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1"), codes=("0", "1"),
        tests=(Unlabelled("QQP", "test", "test", 390965),),
        tsv=Tsv("QQP", ("question1", "question2"), "is_duplicate",
                ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), known_broken_rows=10),
    ),
    GlueTask(
        "mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",),
        tests=(Unlabelled("MNLI-m", "test_matched", "test_matched", 9796),
               Unlabelled("MNLI-mm", "test_mismatched", "test_mismatched", 9847),
               Unlabelled("AX", AX_FILES, "test", 1104, "ax")),
        tsv=Tsv("MNLI", _PAIR, "gold_label",
                ("index", "promptID", "pairID", "genre", *_PARSES, *_PAIR, "label1", "gold_label")),
        dev_sets=(("", "dev_matched", "validation_matched"), ("_mm", "dev_mismatched", "validation_mismatched")),
    ),
    GlueTask(
        "qnli", ("question", "sentence"), _ENTAILMENT, ("accuracy",),
        tests=(Unlabelled("QNLI", "test", "test", 5463),),
        tsv=Tsv("QNLI", ("question", "sentence"), "label", ("index", "question", "sentence", "label")),
    ),
    GlueTask(
        "rte", _PAIR, _ENTAILMENT, ("accuracy",),
        tests=(Unlabelled("RTE", "test", "test", 3000),),
        tsv=Tsv("RTE", _PAIR, "label", ("index", *_PAIR, "label")),
    ),
    GlueTask(
        "wnli", _PAIR, ("not_entailment", "entailment"), ("accuracy",), codes=("0", "1"),
        tests=(Unlabelled("WNLI", "test", "test", 146),),
        tsv=Tsv("WNLI", _PAIR, "label", ("index", *_PAIR, "label")),
    ),
)  # fmt: skip

TASKS: dict[str, GlueTask] = {task.name: task for task in _TASKS}
