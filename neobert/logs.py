"""What a person reads: plain lines on standard output, warnings and errors on standard error."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping
from typing import TextIO

from neobert.training.distributed import Ranks


def rank_prefix(environ: Mapping[str, str]) -> str:
    """Return the beginning of a process's lines, by which a log of many tells whose they are; empty for the first."""
    rank = environ.get("RANK") or (environ.get("SLURM_PROCID") if environ.get("SLURM_STEP_ID", "").isdigit() else None)
    return "" if rank in (None, "", "0") else f"[rank {rank}] "


def set_up_logging(ranks: Ranks) -> None:
    """The main process tells what happens; the others speak up only when something is wrong, with their number.

    Must run before torch and transformers are imported: some of their chatter is turned off through the environment.
    """
    prefix = "" if ranks.is_main else f"[rank {ranks.rank}] "
    news, trouble = _News(sys.stdout), logging.StreamHandler(sys.stderr)
    news.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    trouble.setFormatter(logging.Formatter(f"{prefix}warning: %(message)s"))
    news.addFilter(lambda record: record.levelno < logging.WARNING)
    trouble.setLevel(logging.WARNING)
    ours = logging.getLogger("neobert")
    ours.handlers = [news, trouble]
    ours.setLevel(logging.INFO if ranks.is_main else logging.WARNING)
    ours.propagate = False
    _quiet_libraries()


class _News(logging.StreamHandler[TextIO]):
    """Fails as `print` does when nobody can read any more; logging by itself would print a traceback and go on."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream.write(self.format(record) + self.terminator)
        self.flush()


def _quiet_libraries() -> None:
    """Turns off progress bars and notices that no user can act on; warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, every fork of a data worker is warned about
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", message=r"`gradient_checkpointing", category=FutureWarning)
