"""What a person reads: plain lines on standard output, warnings and errors on standard error."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TextIO

from neobert.training.distributed import Ranks


def set_up_logging(ranks: Ranks) -> None:
    """The main process tells what happens; the others speak up only when something is wrong, with their number.

    Must run before torch and transformers are imported: some of their chatter is turned off through the environment.
    """
    prefix = "" if ranks.is_main else f"[rank {ranks.rank}] "
    news, trouble = _handler(sys.stdout, f"{prefix}%(message)s"), _handler(sys.stderr, f"{prefix}warning: %(message)s")
    news.addFilter(lambda record: record.levelno < logging.WARNING)
    trouble.setLevel(logging.WARNING)
    ours = logging.getLogger("neobert")
    ours.handlers = [news, trouble]
    ours.setLevel(logging.INFO if ranks.is_main else logging.WARNING)
    ours.propagate = False
    _quiet_libraries()


def _handler(stream: TextIO, form: str) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(form))
    return handler


def _quiet_libraries() -> None:
    """Turns off progress bars and notices that no user can act on; warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, every fork of a data worker is warned about
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", message=r"`gradient_checkpointing", category=FutureWarning)
