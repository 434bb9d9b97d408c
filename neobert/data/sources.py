"""One door to all data: settings in, examples out."""

from __future__ import annotations

from pathlib import Path

from neobert.config.glue import GlueData
from neobert.data.examples import TO_TRAIN, Examples, Needed, Splits
from neobert.data.glue_tasks import TASKS


def load_splits(data: GlueData, task_name: str | None, needed: Needed = TO_TRAIN) -> Splits:
    """The examples that `data` asks for, at most as many as it allows; raises `ConfigError` for a user's mistake."""
    splits = _load(data, task_name, needed)
    return Splits(
        splits.task,
        splits.source,
        splits.train.first(data.max_train_samples) if needed.train else Examples(),
        {suffix: dev.first(data.max_eval_samples) for suffix, dev in splits.dev.items() if needed.dev},
        {name: test.first(data.max_predict_samples) for name, test in splits.tests.items()},
    )


def _load(data: GlueData, task_name: str | None, needed: Needed) -> Splits:
    task = TASKS[task_name] if task_name else None
    if data.train_file and data.validation_file:
        from neobert.data.own_files import read_own_files

        # It tells which classes there are, where nothing else does.
        train = Path(data.train_file) if needed.train or not (task or data.labels) else None
        validation = Path(data.validation_file) if needed.dev else None
        test = Path(data.test_file) if data.test_file and needed.tests else None
        return read_own_files(train, validation, test, task, data.labels, columns_of=Path(data.train_file))
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
