"""Reading own files as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neobert.config.glue_data import GlueData
from neobert.data.examples import Needed, Splits
from neobert.data.glue_tasks import TASKS
from neobert.data.own.files import read_own_files
from neobert.data.own.labels import Head


def read(
    train: Path | None, validation: Path | None = None, test: Path | None = None, task: str | None = None,
    head: Head | None = None, **data: Any,
) -> Splits:  # fmt: skip
    """The training file is read as dev set, too, unless there is another; without one, what there is."""
    validation = validation or train
    files = {"train_file": train, "validation_file": validation, "test_file": test}
    settings = GlueData(**{name: str(path) for name, path in files.items() if path is not None}, **data)
    needed = Needed(train is not None, validation is not None, test is not None)
    return read_own_files(settings, TASKS[task] if task else None, needed, head)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    return path
