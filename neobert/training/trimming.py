"""Removes, once a training has its result, the checkpoints that its settings do not keep."""

from __future__ import annotations

import logging

from neobert.config import keep
from neobert.training import checkpoints
from neobert.training.files import TrialFiles, write_text

log = logging.getLogger(__name__)


def trim(paths: TrialFiles, task: str, setting: keep.Keep | None) -> None:
    """Remove checkpoints, in the main process. The trial is done: a failure costs room on the disk and nothing else."""
    try:
        spare = keep.surplus(paths.directory, task, setting)
        if damage := _damage_of_what_stays(paths, spare):
            log.warning("all checkpoints stay, because %s", damage)
            return
        size = sum(map(keep.size_of, (*spare.states, *spare.checkpoints)))
        keep.remove(spare, lambda path, text: write_text(path, text, durable=True))
    except (keep.NotWhole, OSError) as error:
        log.warning("checkpoints that are no longer needed stay: %s. `recipe clean` tries again to remove them", error)
        return
    if size:
        names = ", ".join(path.name for _, path in sorted(keep.numbered(paths.checkpoints))) or "only the model"
        log.info("kept %s; removed %s of other checkpoints and of training state", names, keep.bytes_text(size))


def _damage_of_what_stays(paths: TrialFiles, spare: keep.Surplus) -> str | None:
    """Return which weights that are to stay are damaged: others may be what is left of the training."""
    if spare == keep.Surplus():
        return None
    stay = {path for _, path in keep.numbered(paths.checkpoints)} - {*spare.checkpoints} or {paths.model}
    faults = {path.name: checkpoints.find_fault(path, checkpoints.weights) for path in stay}
    return next(
        (f"{name} is the one to keep, and is damaged: {fault}" for name, fault in faults.items() if fault), None
    )
