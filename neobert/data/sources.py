"""One door to all data: settings in, examples out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neobert.config.glue_data import GlueData
from neobert.data.examples import TO_TRAIN, Examples, Needed, Splits
from neobert.data.glue_tasks import TASKS
from neobert.data.own.labels import Head


def load_splits(data: GlueData, task_name: str | None, needed: Needed = TO_TRAIN, head: Head | None = None) -> Splits:
    """The examples that `data` asks for, at most as many as it allows; raises `ConfigError` for a user's mistake.

    `head` tells the classes of own files where no training file does.
    """
    splits = _load(data, task_name, needed, head)
    return replace(
        splits,
        train=splits.train.first(data.max_train_samples) if needed.train else Examples(),
        dev={suffix: dev.first(data.max_eval_samples) for suffix, dev in splits.dev.items() if needed.dev},
        tests={name: test.first(data.max_predict_samples) for name, test in splits.tests.items()},
    )


def _load(data: GlueData, task_name: str | None, needed: Needed, head: Head | None) -> Splits:
    task = TASKS[task_name] if task_name else None
    if data.is_own:
        from neobert.data.own.files import read_own_files

        return read_own_files(data, task, needed, head)
    assert task is not None, "GlueConfig requires task_name for every other source"
    if data.dir:
        from neobert.data.tsv import read_glue_directory

        return read_glue_directory(Path(data.dir), task, needed)
    if data.hub:
        from neobert.data.hub import load_from_hub

        return load_from_hub(data.hub, task, needed)
    from neobert.data.grammar import generated_splits

    assert data.generated is not None
    return generated_splits(task, data.generated, needed.tests)
