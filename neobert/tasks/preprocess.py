"""`neobert preprocess`: text into shards of token ids, which a pretraining maps into memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from neobert.config.text import PreprocessConfig
from neobert.data.text.documents import Block, Reader
from neobert.data.text.preprocessing import Work, make_shard, merge, plan, read_source
from neobert.data.text.tokenizer import learn_tokenizer, load_tokenizer
from neobert.errors import DONE, RUN_AGAIN, RunError
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption
from neobert.training.progress import Progress

log = logging.getLogger(__name__)


def run(config: PreprocessConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. One process does it all; its tokenizer has threads of its own."""
    if not ranks.is_main:
        return DONE
    since = time.time()
    reader, files, found = read_source(config)
    tokenizer = _tokenizer(config, reader, found)
    if config.step == "tokenizer":
        return _end(paths, since, "vocabulary", len(tokenizer), {})
    work = plan(config, reader, files, found, tokenizer)
    mine = range(config.part, len(work.shards), config.parts) if config.part is not None else range(len(work.shards))
    if config.step != "merge" and not _make(work, mine, paths, lambda: preemption.requested):
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


def _tokenizer(config: PreprocessConfig, reader: Reader, found: list[Block]) -> PreTrainedTokenizerBase:
    """The one that is named, or that lies beside the shards already, or a new one, where that is this trial's work."""
    own = Path(config.output) / "tokenizer"
    section = config.tokenizer
    if section.name_or_path is not None:
        tokenizer = load_tokenizer(section.name_or_path, section)
        if not own.exists() and config.step in ("all", "merge"):
            tokenizer.save_pretrained(own)
        return tokenizer
    if not (own / "tokenizer.json").exists():
        if config.step not in ("all", "tokenizer"):
            raise RunError(f"there is no {own}: learn the tokenizer before the parts, with step: tokenizer")
        documents = chain.from_iterable(reader.documents(block) for block in found)
        learn_tokenizer(documents, int(section.train_vocab_size or 0), own)
    return load_tokenizer(str(own))


def _make(work: Work, mine: range, paths: TrialFiles, stop: Callable[[], bool]) -> bool:
    """Makes these shards that are not there yet; whether it came to the end."""
    missing = [number for number in mine if not work.is_done(number)]
    if len(missing) < len(mine):
        log.info("%d of %d shards are there already", len(mine) - len(missing), len(mine))
    progress = Progress(paths.progress, len(mine) - len(missing), len(mine))
    progress.train_from(len(mine) - len(missing), len(mine))
    for count, number in enumerate(missing, start=len(mine) - len(missing)):
        if stop():
            log.info("asked to stop: %d of %d shards are made", count, len(mine))
            progress.end("stopped")
            return False
        make_shard(work, number)
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
