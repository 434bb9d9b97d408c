"""Settings of `neobert submission`."""

from __future__ import annotations

from pydantic import Field

from neobert.config.base import Strict
from neobert.config.paths import LocalPath


class SubmissionConfig(Strict):
    """Puts the predictions of trials on GLUE into a zip file for https://gluebenchmark.com: submission.zip."""

    trials: list[LocalPath] = Field(min_length=1, description="trials of `neobert glue` that ran with do_predict: true")
    partial: bool = Field(False, description="leave out tasks that no trial was trained on")
