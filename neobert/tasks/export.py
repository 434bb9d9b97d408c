"""`neobert export`: a checkpoint of any known layout as a Hugging Face model with its tokenizer."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neobert.config import ConfigError
from neobert.config.export import ExportConfig
from neobert.errors import DONE
from neobert.training import lease
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles, write_json
from neobert.training.preemption import Preemption
from neobert.versions import versions

if TYPE_CHECKING:
    from neobert.checkpoint import Loaded

log = logging.getLogger(__name__)


def run(config: ExportConfig, paths: TrialFiles, ranks: Ranks, preemption: Preemption) -> int:
    """Returns the exit code. The main process leaves model/ behind, and result.json last."""
    from neobert.checkpoint import UnusableCheckpoint, find, load  # torch and transformers take seconds

    if not ranks.is_main:
        return DONE
    since = time.time()
    try:
        loaded = load(find(Path(config.source)), config.allow_random_weights)
    except UnusableCheckpoint as error:
        raise ConfigError.at(("source",), str(error)) from None
    _check_apart(loaded.found.directory, paths.model)
    log.info("source: %s, a %s in the layout %s", loaded.found.directory, type(loaded.model).__name__,
             loaded.found.layout)  # fmt: skip
    tokenizer = _tokenizer(config, loaded)
    _check_hub_code(config, loaded.model)
    difference = _write(config, loaded, tokenizer, paths.model)
    _write_result(config, loaded, difference, time.time() - since, paths)
    return DONE


def _check_apart(source: Path, target: Path) -> None:
    """What stands at the target is removed before it is written, and the source must not go with it."""
    here, there = source.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        message = f"{source} and {target}, which is to be written, are in one another. Choose another --output-dir"
        raise ConfigError.at(("source",), message)


def _tokenizer(config: ExportConfig, loaded: Loaded) -> Any:
    from neobert.config.text import TokenizerConfig
    from neobert.data.text.tokenizer import load_tokenizer

    source = config.tokenizer or loaded.found.tokenizer
    if source is None:
        message = f"is needed: none lies with {loaded.found.directory}. Name its directory, or its name on the hub"
        raise ConfigError.at(("tokenizer",), message)
    section = TokenizerConfig(name_or_path=str(source), revision=config.revision)
    tokenizer = load_tokenizer(str(source), section)
    entries, embeddings = len(tokenizer), loaded.model.config.vocab_size
    if entries > embeddings:
        message = f"{source} has {entries} entries, but the model only {embeddings} embeddings"
        raise ConfigError.at(("tokenizer",), message)
    tokenizer.model_max_length = loaded.model.config.max_position_embeddings
    # BERT's have token types, of which NeoBERT knows none. Only what a tokenizer was made with is saved.
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
    return tokenizer


def _check_hub_code(config: ExportConfig, model: Any) -> None:
    from neobert.checkpoint.write import HUB, hub_fault

    fault = hub_fault(model) if config.hub_code else None
    if fault:
        message = (
            f"the code of {HUB} cannot load this model: {fault}. Set hub_code: false to export it for neobert alone"
        )
        raise ConfigError.at(("hub_code",), message)


def _write(config: ExportConfig, loaded: Loaded, tokenizer: Any, directory: Path) -> float:
    """Writes the directory and reads it again; returns by how much any output differs."""
    import torch

    from neobert.checkpoint.card import write_card
    from neobert.checkpoint.write import largest_difference, write_model
    from neobert.training import checkpoints

    lease.check()
    if directory.exists():  # an earlier attempt was interrupted
        shutil.rmtree(directory)
    directory.mkdir()
    write_model(loaded.model, directory, getattr(torch, config.dtype), config.hub_code)
    tokenizer.save_pretrained(directory)
    checkpoints.mark_model(directory)
    write_card(directory, loaded, tokenizer, config)
    return largest_difference(loaded.model, directory)


def _write_result(config: ExportConfig, loaded: Loaded, difference: float, seconds: float, paths: TrialFiles) -> None:
    size = sum(weight.numel() for weight in loaded.model.parameters())
    metrics = {
        "weights": size,
        "bytes": (paths.model / "model.safetensors").stat().st_size,
        "largest_difference": difference,
    }
    result = {
        "schema": 1, "task": "export", "metric": "weights", "score": size, "metrics": metrics,
        "seconds": round(seconds, 3), "source": str(loaded.found.directory), "layout": loaded.found.layout,
        "hub_code": config.hub_code, "versions": versions(),
    }  # fmt: skip
    write_json(paths.result, result, durable=True)
    log.info(
        "done: %.1f M weights in %s; what it computes differs by at most %.2g", size / 1e6, paths.model, difference
    )
