"""Reads files of older NeoBERT code as settings of a pretraining. Nothing is dropped silently.

This and its table, `legacy_keys`, are the only places that know the older vocabularies.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from neobert.config.base import ConfigError, KeyPath, Problem
from neobert.config.legacy_keys import ANY, KEYS
from neobert.config.pretrain import PretrainConfig
from neobert.config.source import set_at

GUIDE = "docs/legacy.md"

Translated = tuple[dict[str, Any], list[str]]


def is_legacy(data: Mapping[str, Any]) -> bool:
    """Whether there are keys that only older code had."""
    return bool(_only(dict(_leaves(data)), KEYS, _OURS))


def translate(data: Mapping[str, Any], given: Mapping[KeyPath, Any] = types.MappingProxyType({})) -> Translated:
    """Old settings in the words of `PretrainConfig`, and a notice for each key that is not simply the same.

    What was left out has the value that it had there. `given` is what will be put over the outcome: where it says where
    the data is, the file does not. Raises `ConfigError` with every key that has no equivalent.
    """
    old = dict(_leaves(data))
    words = ", ".join(_only(old, KEYS, _OURS)[:3])
    work = _Work(dict(given))
    _refuse_mixture(old, work)
    _make_room(old, work)
    _resolve_aliases(old, work)
    _agree(old, work)
    for key, value in old.items():
        _translate_key(key, value, work)
    if work.problems:
        first = Problem((), f"is read as a file of older NeoBERT code ({words}), and has keys without an equivalent. "
                            f"{GUIDE} tells what becomes of each")  # fmt: skip
        raise ConfigError([first, *work.problems])
    _fill_defaults(old, work)
    return work.new, work.notices


@dataclass
class _Work:
    """What a translation has come to so far."""

    given: dict[KeyPath, Any]
    new: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, key: str, message: str) -> None:
        self.problems.append(Problem(_path(key), message))

    def set(self, key: str, value: Any) -> None:
        set_at(self.new, _path(key), value)

    def is_given(self, key: str) -> bool:
        """Whether something will be put over this key or its section."""
        path = _path(key)
        return any(self.given.get(path[:end]) is not None for end in range(1, len(path) + 1))

    @property
    def places(self) -> list[str]:
        """Where the data is, as far as that will be put over the file's."""
        section = self.given.get(("dataset",))
        inner = section if isinstance(section, Mapping) else {}
        return [name for name in _PLACES if (inner.get(name), self.given.get(("dataset", name))) != (None, None)]


_PLACES = ("path", "hub", "files", "generated", "sources")


def _make_room(old: dict[str, Any], work: _Work) -> None:
    """Takes out where the file has its data, and what is said of it there, when other data is given."""
    if not work.places:
        return
    names = ["name", "config", "path", "path_to_disk", "train_split", "eval_split"]
    names += ["text_column", "column"] if "path" in work.places else []
    for key in (f"dataset.{name}" for name in names):
        if old.pop(key, None):
            work.notices.append(f"{key} is left out: the data is dataset.{work.places[0]} instead")


def _translate_key(key: str, value: Any, work: _Work) -> None:
    rule = KEYS.get(key)
    if rule is None or (rule.to == key and rule.values is None and not _among(value, rule.left_out)):
        work.set(key, value)  # the same here; or of neither, and then validation tells
    elif _among(value, rule.left_out):
        work.notices.append(f"{key} is left out: {rule.why}")
    elif not rule.to or not _among(value, tuple(rule.values) if rule.values is not None else ANY):
        work.refuse(key, f"is {value!r}, which has no equivalent: {rule.instead}".removesuffix(": "))
    else:
        found = value if rule.values is None else next(v for old, v in rule.values.items() if _equal(old, value))
        work.set(rule.to, found)
        if (rule.to, found) != (key, value):
            work.notices.append(f"{key}: {value!r} is {rule.to}: {found!r} here")


def _resolve_aliases(old: dict[str, Any], work: _Work) -> None:
    """Gives older names of old keys their newer ones."""
    for key in [key for key in old if key in KEYS and KEYS[key].alias]:
        rule, value = KEYS[key], old.pop(key)
        if _among(value, rule.left_out):
            work.notices.append(f"{key} is left out: {rule.why}")
            continue
        if rule.values is not None:
            if not _among(value, tuple(rule.values)):
                work.refuse(key, f"is {value!r}; expected one of {', '.join(map(repr, rule.values))}")
                continue
            value = next(new for given, new in rule.values.items() if _equal(given, value))
        if rule.to in old and not _equal(old[rule.to], value):
            work.refuse(key, f"is {value!r}, but {rule.to}, which says the same, is {old[rule.to]!r}")
            continue
        old[rule.to] = value
        work.notices.append(f"{key} is {rule.to}: {value!r}")


def _agree(old: dict[str, Any], work: _Work) -> None:
    """What depends on several keys; keys that are dealt with are taken out of `old`."""
    for check in (_initial_weights, _data, _lengths, _muon, _schedule):
        check(old, work)


def _initial_weights(old: dict[str, Any], work: _Work) -> None:
    names = ("model.embedding_init_range", "model.decoder_init_range")
    given = {name: old.pop(name) for name in names if name in old}
    ranges = [given.get(name, 0.02) for name in names]
    if not given or not all(isinstance(value, int | float) for value in given.values()):
        old.update(given)
    elif ranges[0] != ranges[1]:
        for name in given:
            work.refuse(name, "embeddings and all other matrices are drawn alike here: set both ranges alike")
    else:
        spread = round(ranges[0] / math.sqrt(3), 6)
        work.set("model.initializer_range", spread)
        work.notices.append(f"{' and '.join(given)} is model.initializer_range: {spread}, the standard deviation of "
                            f"numbers within +-{ranges[0]}")  # fmt: skip


def _data(old: dict[str, Any], work: _Work) -> None:
    if old.get("tokenizer.path"):
        name = old.pop("tokenizer.name", None)
        if name is not None:
            work.notices.append("tokenizer.name is left out: tokenizer.path comes first")
    for key in ("dataset.train_split", "dataset.eval_split"):
        if "[" in str(old.get(key)):
            work.refuse(key, f"is {old.pop(key)!r}: {KEYS[key].instead}")
    if "dataset.streaming" in old and (old.get("dataset.path") or "path" in work.places):
        del old["dataset.streaming"]
        work.notices.append("dataset.streaming is left out: data at a dataset.path is not streamed")
    hub, held_out = old.get("dataset.name"), old.get("dataset.eval_split")
    if hub is not None and old.get("dataset.path"):
        del old["dataset.name"]
        work.notices.append("dataset.name is left out: dataset.path comes first")
    elif held_out is not None:
        if hub is None:
            work.refuse("dataset.eval_split", "is a split of dataset.name, which is not given")
        for name, to in (("name", "hub"), ("config", "hub_config"), ("text_column", "text_column")):
            if old.get(f"dataset.{name}") is not None:
                work.set(f"dataset.validation.{to}", old[f"dataset.{name}"])
    elif old.get("dataset.eval_samples") is not None and not (
        "path" in work.places or work.is_given("dataset.validation")
    ):
        work.refuse("dataset.eval_samples", "a stream's first pieces are not held out: name a dataset.eval_split")


def _lengths(old: dict[str, Any], work: _Work) -> None:
    longest = old.get("dataset.max_seq_length", 512)
    if "tokenizer.max_length" in old and _equal(old["tokenizer.max_length"], longest):
        del old["tokenizer.max_length"]
        work.notices.append("tokenizer.max_length is left out: dataset.max_seq_length says it")
    packed = old.get("datacollator.max_length")
    if type(packed) is int and packed > 0 and not old.get("datacollator.pack_sequences"):
        del old["datacollator.max_length"]
        work.notices.append("datacollator.max_length is left out: it was for packed rows (datacollator.pack_sequences)")


def _muon(old: dict[str, Any], work: _Work) -> None:
    own = "optimizer.muon_config."
    is_muon = str(old.get("optimizer.name")).lower().replace("-", "").replace("_", "") == "muonclip"
    if not is_muon:
        for key in [key for key in old if key.startswith(own) and key in KEYS]:
            del old[key]
            work.notices.append(f"{key} is left out: it is for muonclip")
        return
    if f"{own}enable_clipping" not in old:
        work.refuse("optimizer.name", f"clips attention by default: {KEYS[f'{own}enable_clipping'].instead}")
    decay, general = old.pop(f"{own}muon_decay", None), old.get("optimizer.weight_decay", 0.01)
    if decay is not None and not _equal(decay, general):
        work.refuse(f"{own}muon_decay", f"is {decay}, and optimizer.weight_decay {general}: "
                                        f"{KEYS[f'{own}muon_decay'].instead}")  # fmt: skip
    elif decay is None:
        work.notices.append(f"{own}muon_decay was 0 by default; here it is optimizer.weight_decay, {general}")
    else:
        work.notices.append(f"{own}muon_decay is left out: optimizer.weight_decay says it")
    for name, there, here in (("orthogonalization", "polar_express", "newton_schulz"),
                              ("norm_factor", "spectral", "match_rms_adamw")):  # fmt: skip
        if f"{own}{name}" not in old:
            work.notices.append(f"{own}{name} was {there} by default; here it is {here}")


def _schedule(old: dict[str, Any], work: _Work) -> None:
    """The learning rate goes down until the last step here; there, until `decay_steps`, a place and no duration."""
    last = old.get("trainer.max_steps", 1_000_000)
    percent = old.get("scheduler.warmup_percent")
    if isinstance(percent, int | float) and not isinstance(percent, bool):
        del old["scheduler.warmup_percent"]
        if old.pop("scheduler.warmup_steps", None) is not None:
            work.notices.append("scheduler.warmup_steps is left out: scheduler.warmup_percent comes first")
        work.set("scheduler.warmup_ratio", percent / 100)
        work.notices.append(f"scheduler.warmup_percent: {percent} is scheduler.warmup_ratio: {percent / 100}")
    if old.get("scheduler.decay_percent") is not None and old.pop("scheduler.decay_steps", None) is not None:
        work.notices.append("scheduler.decay_steps is left out: scheduler.decay_percent comes first")
    for name, end in (("total_steps", last), ("decay_steps", last), ("decay_percent", 100)):
        key = f"scheduler.{name}"
        if old.get(key) is None:
            continue
        value = old.pop(key)
        if not _equal(value, end):
            work.refuse(key, f"is {value}, and the learning rate goes down until the last step here, which is "
                             f"trainer.max_steps, {last}: set both alike")  # fmt: skip
        else:
            work.notices.append(f"{key} is left out: trainer.max_steps says it")


def _fill_defaults(old: Mapping[str, Any], work: _Work) -> None:
    """What the file does not say is as it was there, where that is another default than here."""
    streams = (
        _has(work.new, "dataset.hub")
        or bool({"hub", "files", "generated"} & set(work.places))
        or work.given.get(("dataset", "streaming")) is True
    )
    for key, rule in KEYS.items():
        if rule.default is ... or key in old or _has(work.new, rule.to) or work.is_given(rule.to):
            continue
        section = rule.to.split(".")[0]
        if key == "scheduler.warmup_steps" and _has(work.new, "scheduler.warmup_ratio"):
            continue
        if section == "tokenizer" or key == "dataset.streaming":
            if not streams:  # shards have a tokenizer
                continue
        elif key == "trainer.eval_steps" and not _has(work.new, "dataset.validation"):
            continue
        work.set(rule.to, rule.default)
        work.notices.append(f"{rule.to} is {rule.default!r}, which was the default")
    work.notices.append("the decoder has weights of its own and a bias, as published; some 0.1 code had neither: "
                        "model.tie_word_embeddings=true model.decoder_bias=false")  # fmt: skip


def _refuse_mixture(old: Mapping[str, Any], work: _Work) -> None:
    """A file has the words of one version; the fewer of the two are what is wrong."""
    theirs, ours = _only(old, KEYS, _OURS), _only(old, _OURS, KEYS)
    if theirs and ours:
        few, many, kinds = (theirs, ours, "older code") if len(theirs) <= len(ours) else (ours, theirs, "this version")
        for key in few:
            work.refuse(key, f"is of {kinds}, unlike {many[0]}: a file has the words of one version. On the command "
                             "line, those of this version are put over an older file")  # fmt: skip


def _leaves(data: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; a mapping is a value where the table has it so, and a section otherwise."""
    for name, value in data.items():
        key = f"{below}{name}"
        sections = any(other.startswith(f"{key}.") for other in (*KEYS, *_OURS))
        if isinstance(value, Mapping) and sections and (value or key not in KEYS):
            yield from _leaves(value, f"{key}.")
        elif value is not None or not sections or key in KEYS:
            yield key, value


def _only(keys: Iterable[str], known: Container[str], elsewhere: Container[str]) -> list[str]:
    return sorted(key for key in keys if key in known and key not in elsewhere)


def _dotted_keys(model: type[BaseModel], below: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield f"{below}{name}"
        annotation: Any = info.annotation
        members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        for member in members:
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _dotted_keys(member, f"{below}{name}.")


_OURS = frozenset(_dotted_keys(PretrainConfig))


def _path(key: str) -> KeyPath:
    return tuple(key.split("."))


def _has(data: Mapping[str, Any], key: str) -> bool:
    inner: Any = data
    for part in key.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            return False
        inner = inner[part]
    return True


def _among(value: Any, known: tuple[Any, ...]) -> bool:
    return known == ANY or any(_equal(one, value) for one in known)


def _equal(one: Any, other: Any) -> bool:
    """True is not 1 here, and 0 is 0.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other)
    return bool(one == other)
