"""Trainings that have ended and whose last checkpoint was removed since: their results can be made anew.

`neobert.config.keep` notes how such a training ended, beside the model that stays.
"""

from __future__ import annotations

import json
from pathlib import Path

from neobert.config.keep import FINISHED
from neobert.errors import RunError
from neobert.training.checkpoints import Checkpoint, find_fault
from neobert.training.distributed import Ranks
from neobert.training.exchange import broadcast
from neobert.training.files import TrialFiles


def find_ending(paths: TrialFiles, ranks: Ranks) -> Checkpoint | None:
    """Return the end of the training of this trial, with the model that stayed; None where it may still go on.

    The main process reads it for all. Raises `RunError` where the model is lost: beginning anew must not go unnoticed.
    """
    ended = read_ending(paths.checkpoints) if ranks.is_main else None
    fault = find_fault(ended.path) if ended else None
    ended, fault = broadcast([ended and vars(ended) | {"path": str(ended.path)}, fault])
    ended = ended and Checkpoint(**ended | {"path": Path(ended["path"])})
    if ended is not None and fault is not None:
        raise RunError(
            f"this training ended at step {ended.step}, and no checkpoint is left to make its result from "
            f"({ended.path.name}: {fault}). Put result.json back, or remove {paths.checkpoints} to begin anew"
        )
    return ended


def read_ending(checkpoints: Path) -> Checkpoint | None:
    """Return the end of a training whose last checkpoint was removed, or None for any other training.

    Raises `RunError` where the note of it is damaged.
    """
    file = checkpoints / FINISHED
    try:
        end = json.loads(file.read_text(encoding="utf-8"))
        return Checkpoint(checkpoints / f"checkpoint-{end['model']}", end["step"], end["state"], end["processes"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error!r}). Copy it again, or remove {checkpoints} to begin anew") from None
