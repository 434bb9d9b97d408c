"""Settings of `neobert export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from neobert.config.base import Strict
from neobert.config.hub import OnHub
from neobert.config.paths import LocalPath, ModelPath


class ExportConfig(Strict):
    """Writes a checkpoint of any known layout as a Hugging Face model: into model/ of the output directory."""

    source: LocalPath = Field(description="a trial, a checkpoint, or a training of older code, with its newest one")
    tokenizer: Annotated[ModelPath | None, OnHub("tokenizer", revision="revision")] = Field(
        None, description="directory or hub name, if none lies with the source"
    )
    revision: str | None = Field(None, description="commit, branch or tag of a tokenizer on the hub")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    hub_code: bool = Field(
        True, description="loads with trust_remote_code too, by the published code of chandar-lab/NeoBERT"
    )
    allow_random_weights: bool = Field(False, description="export a model that was never trained")
