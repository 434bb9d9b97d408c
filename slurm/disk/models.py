"""Tells how large the models of a plan's trials are, including those that an earlier stage is yet to make."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from neobert.config import TASKS, ExportConfig, GlueConfig, PreprocessConfig, PretrainConfig, Strict, parameters
from neobert.config.sections import ModelConfig
from neobert.config.text import TokenizerConfig
from slurm.disk.errors import Unknown
from slurm.disk.weights import Size, find_model, find_on_hub, read_size, read_vocabulary
from slurm.plan import RUN, Plan, Stage

CLASSES = 3
"""An upper bound for GLUE's tasks; a class more or less does not show in an estimate."""

_FETCH = " (`recipe fetch` brings what is on the hub)"

_OF_RUN = re.compile(rf"{re.escape(RUN)}/trials/([0-9a-f]+)(?:/.*)?")


class Models:
    """The sizes of the models of a plan; methods raise `Unknown`."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._sizes: dict[str, Size | Unknown] = {}

    def of_trial(self, trial_id: str) -> Size:
        """Return the size of the model that a trial trains or writes."""
        if trial_id not in self._sizes:
            try:
                self._sizes[trial_id] = self._of(*self._trials[trial_id])
            except (Unknown, OSError) as error:  # as a cache that only somebody else may read
                self._sizes[trial_id] = Unknown(str(error))
        size = self._sizes[trial_id]
        if isinstance(size, Unknown):
            raise size
        return size

    def settings_of(self, trial_id: str) -> Strict:
        return self._trials[trial_id][1]

    @cached_property
    def _trials(self) -> dict[str, tuple[Stage, Strict]]:
        return {
            trial.id: (stage, TASKS[trial.task].model_validate_json(trial.config)) for stage, trial in self._plan.trials
        }

    def _of(self, stage: Stage, settings: Strict) -> Size:
        environ = {**os.environ, **stage.env}
        match settings:
            case GlueConfig():
                return self._classifier(settings.model, environ)
            case PretrainConfig():
                return self._for_masked_words(settings, environ)
            case ExportConfig():
                return self._named(settings.source, None, environ)
        raise Unknown(f"`neobert {stage.task}` trains no model")

    def _classifier(self, config: ModelConfig, environ: Mapping[str, str]) -> Size:
        if config.is_new:
            width, entries = config.hidden_size, config.vocab_size
            encoder, head = parameters.encoder(config, entries), parameters.classifier(width, CLASSES)
            return Size(encoder, head, parameters.matrices(config), width, entries)
        places = config.pretrained_checkpoint_dir or config.name_or_path or str(config.pretrained_checkpoint)
        base = self._named(places[0] if isinstance(places, list) else places, config.revision, environ)
        head = parameters.classifier(base.hidden_size, CLASSES) if base.hidden_size else 0
        return Size(base.encoder, head, base.matrices, base.hidden_size, base.vocabulary)

    def _for_masked_words(self, settings: PretrainConfig, environ: Mapping[str, str]) -> Size:
        shape = settings.model
        if shape.name_or_path is not None:
            base = self._named(shape.name_or_path, shape.revision, environ)
            new = parameters.decoder(base.hidden_size or 0, base.vocabulary or 0, tied=False, bias=True)
            return Size(base.encoder, base.head or new, base.matrices, base.hidden_size, base.vocabulary)
        entries = self._vocabulary(settings, environ)
        head = parameters.decoder(shape.hidden_size, entries, shape.tie_word_embeddings, shape.decoder_bias)
        encoder = parameters.encoder(shape, entries)
        return Size(encoder, head, parameters.matrices(shape), shape.hidden_size, entries)

    def _named(self, source: str, revision: str | None, environ: Mapping[str, str]) -> Size:
        """The size of a model by its directory, by the trial that makes it, or by its name on the hub."""
        made = _OF_RUN.fullmatch(source)
        if made:
            return self.of_trial(made[1])
        directory = Path(source) if Path(source).exists() else find_on_hub(source, revision, environ)
        if directory is None:
            raise Unknown(f"{source} is not on this machine{_FETCH}")
        model = find_model(directory)
        if model is None:
            raise Unknown(f"{source} holds no Hugging Face model")
        return read_size(model)

    def _vocabulary(self, settings: PretrainConfig, environ: Mapping[str, str]) -> int:
        """Entries of the tokenizer of a pretraining; an upper bound for one that is yet to be learned."""
        if settings.tokenizer is not None:
            return self._entries(settings.tokenizer, environ)
        shards = next(source.path for source in settings.dataset.all_sources if source.path is not None)
        there = read_vocabulary(Path(shards) / "tokenizer")
        if there is not None:
            return there
        for stage, made in self._trials.values():
            if isinstance(made, PreprocessConfig) and made.output == shards:
                return made.tokenizer.train_vocab_size or self._entries(made.tokenizer, {**os.environ, **stage.env})
        raise Unknown(f"the tokenizer of {shards} is not there yet")

    def _entries(self, tokenizer: TokenizerConfig, environ: Mapping[str, str]) -> int:
        name = str(tokenizer.name_or_path)
        made = _OF_RUN.fullmatch(name)
        directory = Path(name) if Path(name).exists() else find_on_hub(name, tokenizer.revision, environ)
        entries = self.of_trial(made[1]).vocabulary if made else read_vocabulary(directory) if directory else None
        if entries is None:
            raise Unknown(f"the tokenizer {name} is not on this machine{_FETCH}")
        return entries
