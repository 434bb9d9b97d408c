"""`neobert preprocess`: text into shards of token ids, which a pretraining maps into memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neobert.config.text import PreprocessConfig
from neobert.errors import DONE, RUN_AGAIN
from neobert.hub import work_offline_if_unreachable
from neobert.training import lease
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption

if TYPE_CHECKING:
    from neobert.data.text.preprocessing import Work

log = logging.getLogger(__name__)

LEFT = {"tokenizer": ["tokenizer"], "part": [], "merge": ["tokenizer", "manifest.json"],
        "all": ["tokenizer", "manifest.json"]}  # fmt: skip
"""What each step leaves in `output`, beside shards."""


def run(config: PreprocessConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. One process does it all; its tokenizer has threads of its own."""
    if not ranks.is_main:
        return DONE
    since = time.time()
    tokenizer_name = config.tokenizer.name_or_path
    if config.data.hub or (tokenizer_name and not Path(tokenizer_name).exists()):
        work_offline_if_unreachable()

    # Imported here, because that switch must come first.
    from neobert.data.text.corpus import find_corpus
    from neobert.data.text.preprocessing import find_tokenizer, is_done, merge, plan

    complete = paths.result.exists() and all((Path(config.output) / name).exists() for name in LEFT[config.step])
    source = find_corpus(config.data, ("data",))
    tokenizer = find_tokenizer(config, source)
    if config.step == "tokenizer":
        return _already(paths) if complete else _end(paths, since, "vocabulary", len(tokenizer), {})
    work = plan(config, source, tokenizer)
    mine = range(config.part, len(work.shards), config.parts) if config.part is not None else range(len(work.shards))
    missing = [number for number in mine if not is_done(work, number)]
    if complete and not missing:
        return _already(paths)
    lease.check()
    paths.result.unlink(missing_ok=True)  # of before some of it was removed: it is true again at the end alone
    if config.step != "merge" and not _make(work, mine, missing, paths, lambda: preemption.requested):
        return RUN_AGAIN
    if config.step == "part":
        return _end(paths, since, "shards", len(mine), {})
    manifest = merge(work)
    train, held_out = manifest["train"], manifest["validation"]
    log.info("%d documents (%d without text, %d cut) are %d pieces, %.1f M tokens; held out: %d pieces",
             manifest["documents"], manifest["without_text"], manifest["cut"], train["pieces"], train["tokens"] / 1e6,
             held_out["pieces"])  # fmt: skip
    figures = {"documents": manifest["documents"], "pieces": train["pieces"], "validation_pieces": held_out["pieces"]}
    return _end(paths, since, "tokens", train["tokens"], figures)


def _already(paths: TrialFiles) -> int:
    log.info("already done: %s", paths.result)
    return DONE


def _make(work: Work, mine: range, missing: list[int], paths: TrialFiles, stop: Callable[[], bool]) -> bool:
    """Makes those of these shards that are not there yet; whether it came to the end."""
    from neobert.data.text.preprocessing import make_shard
    from neobert.training.progress import Progress

    done = len(mine) - len(missing)
    if done:
        log.info("%d of %d shards are there already", done, len(mine))
    progress = Progress(paths.progress, done, len(mine))
    progress.train_from(done, len(mine))
    tokens, start = 0, time.perf_counter()
    for count, number in enumerate(missing, start=done):
        if stop():
            log.info("asked to stop: %d of %d shards are made", count, len(mine))
            progress.end("stopped")
            return False
        tokens += make_shard(work, number)
        rate = tokens / (time.perf_counter() - start)
        log.info("shard %d/%d: %.1f M tokens in all, %.2f M/s", count + 1, len(mine), tokens / 1e6, rate / 1e6)
        progress.update(tokens_per_second=rate)
        progress.at_step(count + 1)
    progress.end("done")
    return True


def _end(paths: TrialFiles, since: float, metric: str, score: int, metrics: dict[str, Any]) -> int:
    seconds = time.time() - since
    result = {
        "schema": 1, "task": "preprocess", "metric": metric, "score": score,
        "metrics": {name: float(value) for name, value in metrics.items()}, "seconds": round(seconds, 3),
    }  # fmt: skip
    write_json(paths.result, result, durable=True)
    log.info("done: %s %d, after %.0f s", metric, score, seconds)
    return DONE
