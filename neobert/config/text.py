"""Where text to pretrain on comes from, and settings of `neobert preprocess`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from neobert.config.base import Strict
from neobert.config.hub import OnHub
from neobert.config.paths import FilePattern, LocalPath, ModelPath, OutputPath
from neobert.config.sections import NonNegative, Positive


class TextFiles(Strict):
    """Documents: of `files` (text, JSON lines, parquet, arrow; names, directories, patterns, URLs), of the `hub`, or
    `generated`."""

    files: list[FilePattern] | None = Field(None, min_length=1)
    hub: Annotated[str | None, OnHub("text", revision="revision", config="hub_config", split="split")] = Field(
        None, min_length=1, description="data set on the hub"
    )
    hub_config: str | None = None
    revision: str | None = Field(None, description="commit, branch or tag of the data set on the hub")
    split: str = "train"
    generated: Positive | None = Field(None, description="that many documents from the built-in grammar: synthetic")
    text_column: str = Field("text", description="not for text files")
    whole_files: bool = Field(False, description="a text file is one document, and not one in each line")

    @model_validator(mode="after")
    def _one_place(self) -> Any:
        given = [name for name in self._places() if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(self._places())}; found {' and '.join(given) or 'none'}"
            )
        # Values and not keys are looked at: settings that were written out, with all their keys, are read again.
        if self.hub is None and (self.hub_config, self.revision, self.split) != (None, None, "train"):
            raise ValueError("hub_config, revision and split go with hub")
        return self

    def _places(self) -> tuple[str, ...]:
        return ("files", "hub", "generated")


class TokenizerConfig(Strict):
    """The tokenizer: one that exists, or a WordPiece tokenizer to be learned from the text itself."""

    name_or_path: Annotated[ModelPath | None, OnHub("tokenizer", revision="revision")] = Field(
        None, description="directory or hub name"
    )
    revision: str | None = None
    trust_remote_code: bool = False
    train_vocab_size: int | None = Field(None, ge=64, description="learn one of at most this many entries")

    @model_validator(mode="after")
    def _one(self) -> TokenizerConfig:
        if (self.name_or_path is None) == (self.train_vocab_size is None):
            raise ValueError("expected either name_or_path or train_vocab_size")
        return self


class PreprocessConfig(Strict):
    """Tokenises text into shards that a pretraining maps into memory.

    `step: all` does everything. To share out the work: `tokenizer` (only to learn one), then `part` number 0 to
    `parts` - 1 as trials of an array, then `merge`.
    """

    data: TextFiles
    tokenizer: TokenizerConfig
    output: OutputPath = Field(description="directory for the shards, the same for all parts")
    max_seq_length: int = Field(1024, ge=8, description="tokens a piece; longer documents become several pieces")
    validation_fraction: float = Field(0.0, ge=0, lt=1, description="share of documents that is held out")
    shard_bytes: Positive = Field(64_000_000, description="about how much text makes a shard; it stops between them")
    step: Literal["all", "tokenizer", "part", "merge"] = "all"
    parts: Positive = 1
    part: NonNegative | None = None

    @model_validator(mode="after")
    def _parts(self) -> PreprocessConfig:
        if (self.step == "part") != (self.part is not None):
            raise ValueError("part goes with step: part, and only with it")
        if self.part is not None and self.part >= self.parts:
            raise ValueError(f"part {self.part} is none of {self.parts} parts, which are numbered from 0")
        if self.step == "tokenizer" and self.tokenizer.train_vocab_size is None:
            raise ValueError(
                "step: tokenizer learns one (tokenizer.train_vocab_size); a tokenizer with a name needs none"
            )
        return self


class TrainingText(TextFiles):
    """One source of a pretraining: shards of `neobert preprocess` (`path`), or files, tokenised as they come."""

    path: LocalPath | None = Field(None, description="directory of shards")
    weight: float | None = Field(None, gt=0, description="share of the text; with one source of several, with all")

    def _places(self) -> tuple[str, ...]:
        return ("path", "files", "hub", "generated")

    @model_validator(mode="after")
    def _shards_are_ready(self) -> TrainingText:
        if self.path is not None and (self.text_column != "text" or self.whole_files):
            raise ValueError("text_column and whole_files go with files and hub; shards (path) hold tokens already")
        return self
