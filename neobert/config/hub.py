"""What settings name on the Hugging Face hub, by the marks of their fields, and how a command names it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from neobert.config.paths import marks_of

Kind = Literal["model", "tokenizer", "dataset", "text"]

FORMS: dict[Kind, str] = {
    "model": "NAME[@REVISION]",
    "tokenizer": "NAME[@REVISION]",
    "dataset": "NAME[:CONFIG][@REVISION]",
    "text": "NAME[:[CONFIG]:SPLIT][@REVISION]",
}
"""How each kind is written behind the option of `neobert fetch` that has its name."""

WRITTEN = re.compile(r"([^:@\s]+)(?::([^:@\s]*))?(?::([^:@\s]+))?(?:@(\S+))?")


@dataclass(frozen=True)
class OnHub:
    """Marks a field that may hold a name on the hub: of what, and which fields say more of it.

    Those stand beside it, or else in a section around it. A `dataset` is prepared as a whole by the library of that
    name; of a `text`, the files of one split are read as they are.
    """

    kind: Kind
    revision: str | None = None
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class HubName:
    """Something on the hub."""

    kind: Kind
    name: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, kind: Kind, written: str) -> HubName:
        """What `str` has written; raises `ValueError`."""
        match = WRITTEN.fullmatch(written)
        name, config, split, revision = match.groups() if match else (None,) * 4
        allowed = {"config": kind in ("dataset", "text"), "split": kind == "text"}
        if name is None or (config and not allowed["config"]) or (split and not allowed["split"]):
            raise ValueError(f"expected {FORMS[kind]}, found {written!r}")
        return cls(kind, name, revision, config or None, (split or "train") if kind == "text" else None)

    def __str__(self) -> str:
        split = f":{self.split}" if self.split not in (None, "train") else ""
        config = f":{self.config or ''}" if self.config or split else ""
        return f"{self.name}{config}{split}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_here(self) -> bool:
        """Whether it is the name of a directory of this machine instead."""
        return self.name.startswith(("/", "./", "../", "~")) or Path(self.name).exists()


@runtime_checkable
class NamesMore(Protocol):
    """Settings that need more of the hub than the marks of their fields tell."""

    def more_on_hub(self) -> Iterable[HubName]: ...


def hub_names(settings: BaseModel, around: tuple[BaseModel, ...] = ()) -> Iterator[HubName]:
    """Everything that the settings name on the hub, by the marks of their fields, and what goes with it.

    A name of the hub and one of a directory look alike: `is_here` tells.
    """
    sections = (settings, *around)
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        marks = [mark for mark in marks_of(type(settings), field) if isinstance(mark, OnHub)]
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, BaseModel):
                yield from hub_names(inner, sections)
            elif marks and isinstance(inner, str):
                mark = marks[0]
                revision, config, split = (_near(name, sections) for name in (mark.revision, mark.config, mark.split))
                yield HubName(mark.kind, inner, revision, config, split)
    if isinstance(settings, NamesMore):
        yield from settings.more_on_hub()


def _near(field: str | None, sections: tuple[BaseModel, ...]) -> str | None:
    """The value of the field of that name in the innermost section that has one."""
    if field is None:
        return None
    value = next(getattr(section, field) for section in sections if field in type(section).model_fields)
    return None if value is None else str(value)


def each_once(names: Iterable[HubName]) -> list[HubName]:
    """Without repetitions, and without the tokenizers of models that are named as well."""
    distinct = dict.fromkeys(names)
    models = {replace(name, kind="tokenizer") for name in distinct if name.kind == "model"}
    return [name for name in distinct if name not in models]
