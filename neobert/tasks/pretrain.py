"""`neobert pretrain`: trains an encoder to guess masked words."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from neobert.config import PretrainConfig
from neobert.errors import DONE, RUN_AGAIN
from neobert.hub import work_offline_if_unreachable
from neobert.training.caveats import no_better, risen
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption
from neobert.training.trimming import trim
from neobert.versions import versions

if TYPE_CHECKING:
    from neobert.training.pretrain import Outcome

log = logging.getLogger(__name__)


def run(config: PretrainConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. The main process leaves the trial's files behind: the model, and result.json last."""
    names = [config.model.name_or_path, config.tokenizer.name_or_path if config.tokenizer else None]
    texts = [*config.dataset.all_sources, *filter(None, [config.dataset.validation])]
    if any(text.hub for text in texts) or any(name and not Path(name).exists() for name in names):
        work_offline_if_unreachable()
    from neobert.training.pretrain import pretrain  # torch and transformers take seconds

    outcome = pretrain(config, paths, ranks, preemption)
    if outcome is None:
        return RUN_AGAIN
    if ranks.is_main:
        _write_result(outcome, config, paths)
        trim(paths, "pretrain", config.trainer.keep)
    return DONE


def _write_result(outcome: Outcome, config: PretrainConfig, paths: TrialFiles) -> None:
    metric = "masked_accuracy" if "masked_accuracy" in outcome.metrics else "loss"
    score = outcome.metrics[metric]
    result = {
        "schema": 1,
        "task": "pretrain",
        "score": score,
        "metric": metric,
        "metrics": {name: value for name, value in sorted(outcome.metrics.items()) if math.isfinite(value)},
        "seconds": round(outcome.seconds, 3),
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "versions": versions("deepspeed") if config.deepspeed else versions(),
    }
    if outcome.baseline is not None and metric == "masked_accuracy":
        result |= {"baseline": outcome.baseline, "baseline_name": "the commonest token"}
    warnings = [text for text in (no_better(result), risen(outcome.losses, outcome.guess)) if text]
    result |= {"warnings": warnings} if warnings else {}
    write_json(paths.result, result, durable=True)
    log.info("done: %s %.4f after %d steps, %.1f M tokens and %.0f s; the model is in %s", metric, score, outcome.steps,
             outcome.tokens / 1e6, outcome.seconds, paths.model)  # fmt: skip
    for warning in warnings:
        log.warning("%s", warning)
