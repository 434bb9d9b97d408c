"""A classifier with its tokenizer: loaded and verified, or new."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from neobert.checkpoint import Found, UnusableCheckpoint, is_neobert, load
from neobert.checkpoint.convert import unwrapped
from neobert.checkpoint.errors import reason_of
from neobert.checkpoint.find import layout_of
from neobert.checkpoint.read import find_damage, read
from neobert.checkpoint.select import key_of, select
from neobert.checkpoint.shape import said_of
from neobert.config import ConfigError, Problem
from neobert.config.paths import why_incomplete, why_missing
from neobert.config.sections import ModelConfig
from neobert.data.examples import Splits
from neobert.data.glue_tasks import GlueTask
from neobert.data.tokenizing import train_wordpiece
from neobert.data.vocabulary import missing_packages, warn_of_lost_entries
from neobert.model import NeoBERT, NeoBERTConfig, NeoBERTForSequenceClassification, fit, heads, verify
from neobert.model.unpadding import is_known

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classifier:
    model: Any
    tokenizer: PreTrainedTokenizerBase

    @property
    def inputs(self) -> list[str]:
        """The parts of the tokenizer's output that the model takes."""
        return fit.inputs_of(self.model, self.tokenizer)


def build_classifier(
    config: ModelConfig, splits: Splits, max_length: int, checkpoint: Path | None, with_head: bool = False
) -> Classifier:
    """The model and tokenizer of `checkpoint` when resuming, otherwise those that the settings name or describe.

    Raises `ConfigError` unless all of the encoder comes from where the settings say; `with_head`, the head as well.
    """
    found = None if checkpoint else selected(config)
    source = str(checkpoint or (found.directory if found else config.name_or_path or ""))
    tokenizer_source = config.tokenizer or str((found.tokenizer if found else None) or source)
    if checkpoint:
        tokenizer_source = source
    if tokenizer_source:
        tokenizer = _load_tokenizer(tokenizer_source, config, splits)
    else:
        tokenizer = train_wordpiece(splits.train.texts, config.vocab_size, config.max_position_embeddings)
    if not source:
        model = _new(splits.task, config, tokenizer)
    elif found and is_neobert(found):
        model = _of_checkpoint(found, splits.task, config, with_head)
    else:
        model = _of_hugging_face(source, found, splits.task, config, with_head, None if checkpoint else tokenizer)
    texts = splits.some().texts[: verify.SAMPLE]
    fit.check_fit(tokenizer_source or "the data", model, tokenizer, max_length, texts[0])
    classifier = Classifier(model, tokenizer)
    if checkpoint is None and not is_known(model):
        batches = fit.extremes(tokenizer, texts, max_length, classifier.inputs)
        fit.try_out(source, key_of(config), model, batches, training=not with_head)
    return classifier


def selected(config: ModelConfig) -> Found | None:
    shape = config.pretrained_config_path
    if shape is not None and not Path(shape).is_file():
        raise _problem("pretrained_config_path", f"there is no file {shape!r}{why_missing(Path(shape))}")
    try:
        found = select(config)
    except UnusableCheckpoint as error:
        raise _problem(key_of(config), str(error)) from None
    if shape is not None and (found is None or found.layout == "Hugging Face"):
        why = "there is no checkpoint on this machine to need it"
        if found is not None:
            why = f"{found.directory} has a config.json of its own"
        raise _problem("pretrained_config_path", f"would not be used: {why}. Leave it out")
    return found


def _new(task: GlueTask, config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps", "rope_theta",
             "max_position_embeddings", "initializer_range", "classifier_dropout")  # fmt: skip
    sizes = {name: getattr(config, name) for name in names}
    if config.classifier_pooling is not None:
        sizes["classifier_pooling"] = config.classifier_pooling
    shape = NeoBERTConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes, **_head(task))
    return NeoBERTForSequenceClassification(shape)


def _head(task: GlueTask) -> dict[str, Any]:
    """What a Hugging Face configuration says of the classes."""
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: number for number, label in enumerate(task.labels)},
        "problem_type": "single_label_classification",
    }


def _load_tokenizer(source: str, config: ModelConfig, splits: Splits) -> PreTrainedTokenizerBase:
    key = "tokenizer" if config.tokenizer else "name_or_path"
    revision = config.revision if key == "name_or_path" else None  # it belongs to the model's repository
    missing = missing_packages(source)
    if missing:
        raise _problem(key, missing)
    with explained(source, key):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=config.trust_remote_code)
    if tokenizer.pad_token_id is None:
        raise _problem(key, f"{source!r}: the tokenizer has no padding token, so examples cannot share a batch")
    verify.check_vocabulary(source, key, tokenizer, splits.some().texts)
    warn_of_lost_entries(source, tokenizer)
    return tokenizer


_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "cls_dropout",
             "summary_first_dropout", "summary_last_dropout")  # fmt: skip
"""What Hugging Face's models call the dropout of their heads."""


_OUTPUTS = {"return_dict": True, "output_attentions": False}
"""What a training needs, whatever a model's configuration asks for."""


def _of_hugging_face(
    source: str, found: Found | None, task: GlueTask, config: ModelConfig, with_head: bool,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Any:  # fmt: skip
    """A pretrained encoder under a head for the task. Only the head may be new; raises `ConfigError` otherwise.

    `source` is a directory or a name on the hub. `tokenizer` is None when a training goes on from its own checkpoint.
    """
    options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    key = "name_or_path" if tokenizer is None else key_of(config)
    described = str(found.config) if found and found.layout != "Hugging Face" else source
    with explained(source, key), _without_load_report():
        said, _ = PreTrainedConfig.get_config_dict(described, revision=config.revision)
        shape = AutoConfig.from_pretrained(described, **options)
        shape.update({**_head(task), **_OUTPUTS})
        if "classifier_dropout" in config.model_fields_set:
            shape.update(dict.fromkeys(_DROPOUTS, config.classifier_dropout))
        if config.classifier_pooling is not None:
            verify.check_pooling(source, shape)
            shape.classifier_pooling = config.classifier_pooling
        if tokenizer is not None and getattr(shape, "pad_token_id", 0) is None:
            shape.pad_token_id = tokenizer.pad_token_id  # by which the heads of decoders tell where a text ends
        model, info = _loaded(source, found, shape, options)
    verify.check_weights(source, key, model, info)
    if not config.allow_random_weights:
        verify.check_trained(source, key, model)
    if "classifier_dropout" in config.model_fields_set:
        verify.check_dropout(source, model, config.classifier_dropout)
    if tokenizer is not None:
        new = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
        _summarise(source, model, new, info["unexpected_keys"])
        if not new:
            heads.realign(source, key, model, said, task, with_head)
        elif with_head and not config.allow_random_weights:
            raise _headless(source, key, new)
    return model


def _loaded(source: str, found: Found | None, shape: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model and the library's report of its loading; read here what the library does not know to read."""
    more: dict[str, Any] = {
        "config": shape, "ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": torch.float32
    }  # fmt: skip
    if found and found.layout != "Hugging Face":
        weights = {unwrapped(name): tensor for name, tensor in read(found).items()}
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(shape)].from_pretrained(None, state_dict=weights, **more)
    model, info = AutoModelForSequenceClassification.from_pretrained(source, **more, **options)
    names = info["unexpected_keys"]
    if not any(unwrapped(name) != name for name in names):
        return model, info
    directory = Path(cached_file(source, "config.json", revision=options["revision"])).parent
    layout = layout_of(directory)
    assert layout is not None, "weights have been loaded from there"
    there = read(Found(directory, layout, directory / "config.json", None))
    weights = {unwrapped(name) if name in names else name: tensor for name, tensor in there.items()}
    return type(model).from_pretrained(None, state_dict=weights, **more)


def _of_checkpoint(found: Found, task: GlueTask, config: ModelConfig, with_head: bool) -> Any:
    """NeoBERT's encoder of a checkpoint of any layout, under a head for the task; so is what fits of its own head."""
    key = key_of(config)
    try:
        loaded, said = load(found, config.allow_random_weights).model, said_of(found)
    except UnusableCheckpoint as error:
        raise _problem(key, str(error)) from None
    shape = copy.deepcopy(loaded.config)
    shape.update({**_head(task), **_OUTPUTS, "architectures": None})
    if "classifier_dropout" in config.model_fields_set:
        shape.classifier_dropout = config.classifier_dropout
    if config.classifier_pooling is not None:
        shape.classifier_pooling = config.classifier_pooling
    model = NeoBERTForSequenceClassification(shape)
    encoder = loaded if isinstance(loaded, NeoBERT) else loaded.model
    weights = {f"model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    others = {} if encoder is loaded else {n: t for n, t in loaded.state_dict().items() if not n.startswith("model.")}
    expected = model.state_dict()
    weights |= {n: t for n, t in others.items() if n in expected and t.shape == expected[n].shape}
    model.load_state_dict(weights, strict=False)  # the encoder's are all there: `load` has seen to it
    new = expected.keys() - weights.keys()
    source = str(found.directory)
    _summarise(source, model, new, others.keys() - weights.keys())
    if not new:
        heads.realign(source, key, model, said, task, with_head)
    elif with_head and not config.allow_random_weights:
        raise _headless(source, key, new)
    return model


def _summarise(source: str, model: Any, new: Collection[str], unused: Collection[str]) -> None:
    loaded = len(model.state_dict()) - len(new)
    told = [f"{len(names)} {what} ({_some(names)})" for what, names in (("new", new), ("not used", unused)) if names]
    log.info("weights of %s: %s", source, ", ".join([f"{loaded} loaded", *told]))


def _headless(source: str, key: str, new: Collection[str]) -> ConfigError:
    return _problem(key, f"{source!r} has no head for this task (not in it: {_some(new)}): it must be trained first")


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")


@contextmanager
def explained(source: str, key: str) -> Iterator[None]:
    """Turns what Hugging Face raises for a model that is not there into one message that says what to do."""
    try:
        yield
    except ConfigError:
        raise
    except UnusableCheckpoint as error:
        raise _problem(key, str(error)) from None
    except Exception as error:  # noqa: BLE001  # OSError, ValueError, KeyError, SafetensorError, the hub's own
        path = Path(source)
        if path.is_dir():
            reason = find_damage(path) or reason_of(error)
            lost = why_incomplete(path)
            message = f"{source!r} is a directory, but no model can be loaded from it: {reason}{lost}"
            if not (path / "config.json").is_file():
                hint = verify.EXPORT_FIRST.format(source=source)
                message = f"{source!r} is a directory without config.json{lost}, so no Hugging Face model. {hint}"
        elif path.exists():
            message = f"{source!r} is a file; expected a directory with config.json and model.safetensors"
        elif source[0] in "/.~":
            message = f"there is no directory {source!r}{why_missing(path)}"
        else:
            message = missing_packages(source, str(error)) or (
                f"there is no directory {source!r} here{why_missing(path)}, and the hub did not give such a model: "
                f"{reason_of(error)}\n"
                f"  Nodes often reach no hub. `recipe fetch RECIPE`, or `neobert fetch --model {source}`, brings it\n"
                "  into their cache from where there is a connection, such as a login node, with the same HF_HOME. Or\n"
                "  give its directory."
            )
        raise _problem(key, message) from None


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Hides the table of missing and unexpected weights: `_verify` judges them, and what matters is said once."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _problem(key: str, message: str) -> ConfigError:
    return ConfigError([Problem(("model", key), message)])
