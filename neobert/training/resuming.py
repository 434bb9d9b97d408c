"""The place where a training goes on, and what must be as before then: its data, and what it saw at its beginning."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object

from neobert.data.examples import Splits
from neobert.errors import RunError
from neobert.training import checkpoints
from neobert.training.checkpoints import Checkpoint
from neobert.training.checksums import is_share
from neobert.training.distributed import Ranks
from neobert.training.ended import find_ending
from neobert.training.files import TrialFiles, write_json

log = logging.getLogger(__name__)


def newest_checkpoint(paths: TrialFiles, ranks: Ranks) -> Checkpoint | None:
    """Return the newest checkpoint that is whole: the same in all processes, which verify its files together.

    Of a training whose last checkpoint was removed since, it is the end, with the model that stayed.
    """
    ended = find_ending(paths, ranks)
    if ended is not None:
        return ended
    candidates = checkpoints.present(paths.checkpoints) if ranks.is_main else iter(())
    while True:
        candidate = next(candidates, None)
        (step,) = broadcast_object_list([candidate.step if candidate else None])
        if step is None:
            return None
        here = checkpoints.at_step(paths.checkpoints, step)
        fault = _find_damage(here.path, ranks)
        if fault is None:
            return here
        if ranks.is_main:
            checkpoints.warn_of(here.path, fault)


def _find_damage(path: Path, ranks: Ranks) -> str | None:
    """Return the damage that any of the processes sees in its share of the files."""
    fault = checkpoints.find_damage(path, lambda name: is_share(name, ranks.rank, ranks.world_size))
    faults = gather_object([fault])
    return next((fault for fault in faults if fault), None)


def record_data(paths: TrialFiles, splits: Splits) -> None:
    """Writes down what the checkpoints to come are trained on."""
    write_json(paths.trained_on, splits.summary(), durable=True)


def check_same_data(paths: TrialFiles, splits: Splits) -> None:
    """Raises `RunError` when the data is not what the checkpoints were trained on.

    A checkpoint's place in the data would mean something else, and its result would belong to neither.
    """
    before, now = _read(paths.trained_on), splits.summary()
    if before is None:
        log.warning(
            "%s is missing or damaged, so nothing tells whether the data is the same as before", paths.trained_on
        )
        return
    changes = [_change(name, before.get(name), value) for name, value in now.items() if before.get(name) != value]
    if changes:
        raise RunError(
            f"the checkpoints in {paths.checkpoints} were trained on other data: {'; '.join(changes)}. Start with the "
            "data of before, or remove the checkpoints to begin anew."
        )


def found_once(paths: TrialFiles, ranks: Ranks, name: str, find: Callable[[], bool]) -> bool:
    """What the training found when it began: found again from the weights of now, it might differ, and these with it.

    The main process finds it for all.
    """
    known = (_read(paths.trained_on) or {}) if ranks.is_main else {}
    found = known.get(name)
    if found is None and ranks.is_main:
        found = find()
        if known:
            write_json(paths.trained_on, {**known, name: found}, durable=True)
    (found,) = broadcast_object_list([found])
    return bool(found)


def trains_unlisted_rows(paths: TrialFiles, ranks: Ranks) -> bool:
    """Whether an earlier version noted that it trains only the embeddings of its texts, of which it kept no list."""
    noted = bool((_read(paths.trained_on) or {}).get("trains used rows")) if ranks.is_main else False
    (noted,) = broadcast_object_list([noted])
    return noted


def check_best(paths: TrialFiles, step: int) -> None:
    """Raises `RunError` when the best checkpoint, which makes the predictions, is lost or damaged."""
    path = paths.checkpoints / f"checkpoint-{step}"
    fault = checkpoints.find_fault(path, checkpoints.weights)
    if fault:
        raise RunError(
            f"the best checkpoint, {path}, cannot make the predictions for the test set: {fault}. Put it back, or "
            f"remove {paths.checkpoints} to begin anew."
        )


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _change(name: str, before: Any, now: Any) -> str:
    return f"{name} {before} then, {now} now" if name != "digest" else "texts or labels have changed"
