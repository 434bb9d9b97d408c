"""Faults that make a start hopeless, the nodes that may be to blame, and the launcher's copy: preflight.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from neobert.training.files import to_json, write_text


@dataclass(frozen=True)
class Fault:
    """A fault and the nodes to blame: none where it may be any of them, or cannot be a node's fault."""

    message: str
    nodes: tuple[str, ...] = ()
    reason: str = ""
    """The complaint without names: the same words on every node that has the same trouble."""

    def __str__(self) -> str:
        return json.dumps([self.message, self.nodes, self.reason])

    @classmethod
    def parse(cls, text: str | bytes) -> Fault:
        message, nodes, reason = json.loads(text)
        return cls(message, tuple(nodes), reason)


def merge(faults: Sequence[Fault]) -> Fault:
    """Merge the faults that several processes report. Two nodes with the same complaint are both innocent."""
    speakers: dict[str, set[str]] = {}
    for fault in faults:
        speakers.setdefault(fault.reason, set()).update(fault.nodes)
    shared = any(reason and len(nodes) > 1 for reason, nodes in speakers.items())
    nodes = dict.fromkeys(node for fault in faults for node in fault.nodes)
    messages = dict.fromkeys(fault.message for fault in faults)
    return Fault("; ".join(messages), () if shared else tuple(nodes), "; ".join(filter(None, speakers)))


def write_record(path: Path, attempt: int | None, fault: Fault) -> None:
    write_text(path, to_json({"schema": 1, "attempt": attempt, **asdict(fault)}) + "\n")


def is_recorded(path: Path, attempt: int | None) -> bool:
    """Whether somebody has written already why this very attempt cannot start."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        recorded = json.loads(path.read_text(encoding="utf-8"))["attempt"]
        return attempt is not None and recorded == attempt
    return False
