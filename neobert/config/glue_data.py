"""Settings of `neobert glue` about its data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from neobert.config.base import Strict
from neobert.config.hub import OnHub
from neobert.config.paths import LocalPath
from neobert.config.sections import Positive

OWN_FILES = ("train_file", "validation_file", "test_file")
_FOR_OWN_FILES = ("text_columns", "label_column", "id_column", "problem", "quotes")
"""Settings that say how to read own files. Left out of a dump when unset: trials of before have the same id."""


class GlueData(Strict):
    """Where the examples come from: exactly one of `dir`, `hub`, own files, or `generated`."""

    dir: LocalPath | None = Field(None, description="GLUE directory: TASK/{train,dev,test}.tsv")
    hub: Annotated[str | None, OnHub("dataset", config="task_name")] = Field(
        None, description="data set on the hub in the layout of nyu-mll/glue"
    )
    train_file: LocalPath | None = Field(None, description="csv, tsv, json, jsonl or parquet; likewise the next two")
    validation_file: LocalPath | None = None
    test_file: LocalPath | None = None
    generated: Positive | None = Field(None, description="that many training examples from the built-in grammar")

    labels: list[str] | None = Field(
        None, min_length=2, description="own files: the classes, in the order of their numbers"
    )
    max_length: int = Field(128, ge=8, description="tokens an example; longer ones are cut")
    max_train_samples: Positive | None = None
    max_eval_samples: Positive | None = None
    max_predict_samples: Positive | None = None

    text_columns: list[str] | None = Field(
        None, min_length=1, max_length=2, description="own files: the column of the text, or the two of a pair"
    )
    label_column: str | None = Field(None, min_length=1, description="own files: by default label, or labels")
    id_column: str | None = Field(None, min_length=1, description="own files: of the test file, for the predictions")
    problem: Literal["classification", "regression"] | None = Field(
        None, description="own files without task_name: what the labels are, where they could be either"
    )
    quotes: Literal["csv", "none"] | None = Field(
        None, description="own .tsv files: whether quotes enclose fields, or are part of the text"
    )

    @property
    def is_own(self) -> bool:
        """True where the examples come from the user's own files."""
        return any(getattr(self, name) is not None for name in OWN_FILES)

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        names = [label.strip() for label in labels or ()]
        if names != (labels or []) or "" in names or len(set(names)) < len(names):
            raise ValueError(f"expected different names without blanks around them, found {labels}")
        return labels

    @model_validator(mode="after")
    def _one_source(self) -> GlueData:
        sources = [name for name in ("dir", "hub", "generated") if getattr(self, name) is not None]
        sources += ["own files"] if self.is_own else []
        if len(sources) != 1:
            raise ValueError(
                "expected exactly one of dir, hub, generated, and own files (train_file, validation_file, test_file); "
                f"found {' and '.join(sources) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _about_own_files(self) -> GlueData:
        unused = [name for name in _FOR_OWN_FILES if getattr(self, name) is not None]
        if unused and not self.is_own:
            raise ValueError(f"{unused[0]} goes with own files (train_file, validation_file, test_file)")
        columns = [*(self.text_columns or ()), *filter(None, (self.label_column, self.id_column))]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"text_columns, label_column and id_column name {twice[0]!r} twice")
        if "" in columns:
            raise ValueError("text_columns: a column without a name holds row numbers. Name the column of the text")
        if self.id_column and not self.test_file:
            raise ValueError("id_column is copied into the predictions for test_file, and there is no test_file")
        if self.problem == "regression" and self.labels is not None:
            raise ValueError("labels are the classes of a classification, but problem is regression: remove one")
        files = [getattr(self, name) or "" for name in OWN_FILES]
        if self.quotes and not any(file.lower().endswith(".tsv") for file in files):
            raise ValueError("quotes is for .tsv files, and none of these files is one: remove it")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name not in _FOR_OWN_FILES or value is not None}
