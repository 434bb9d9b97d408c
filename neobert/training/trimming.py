"""The end of a training that has its result: what its settings do not keep of its checkpoints goes."""

from __future__ import annotations

import logging

from neobert.config import keep
from neobert.training.files import TrialFiles, write_text

log = logging.getLogger(__name__)


def trim(paths: TrialFiles, task: str, kept: keep.Keep | None) -> None:
    """Remove checkpoints, in the main process. The trial is done: a failure costs room on the disk alone."""
    try:
        spare = keep.surplus(paths.directory, task, kept)
        size = sum(map(keep.size_of, (*spare.states, *spare.checkpoints)))
        keep.remove(spare, lambda path, text: write_text(path, text, durable=True))
    except (keep.NotWhole, OSError) as error:
        log.warning("not all checkpoints that could go were removed: %s. `recipe clean` tries it again", error)
        return
    if size:
        names = ", ".join(path.name for _, path in sorted(keep.numbered(paths.checkpoints))) or "the model alone"
        log.info("checkpoints: %s stays, %.0f MB of others and of training state removed", names, size / 1e6)
