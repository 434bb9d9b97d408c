"""Whether an image fits the code and the lock that lie here, and what a recipe asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slurm.cluster import Profile
from slurm.engine import Engine
from slurm.image.definitions import LOCK, about, definitions, locked_version, sha256_text
from slurm.image.labels import read_labels, read_sidecar, size_by_header
from slurm.image.project import Source
from slurm.plan import make_plan
from slurm.provenance import hash_file
from slurm.recipe import load_recipe


@dataclass(frozen=True)
class Difference:
    """Something in which the image is not as it should be. A `note` does no harm: jobs run the submitted code."""

    what: str
    has: str
    needed: str
    note: bool = False


@dataclass(frozen=True)
class Needs:
    """What a recipe's stages ask of their image."""

    gpus: bool = False
    deepspeed: bool = False


def needs_of(name: str) -> Needs:
    """What the recipe of that name or path asks for, in any of its trials."""
    plan = make_plan(load_recipe(name), "any", Profile(backend="local"))  # no site's limits
    return Needs(
        gpus=any(stage.resources.gpus_per_node > 0 for stage in plan.stages),
        deepspeed=any(json.loads(trial.config).get("deepspeed") is not None for _, trial in plan.trials),
    )


def differences(engine: Engine, image: Path, source: Source, needs: Needs) -> list[Difference]:
    """All of them; raises `ConfigError` for a file that is no image."""
    labels = read_labels(engine, image)
    if "neobert.kind" not in labels:
        return [Difference("image", "none of this project's labels", "one made by `recipe image build`")]
    return [
        one
        for one in (*_file(image), *_packages(labels), *_needs(labels, needs), *_code(labels, source))
        if one.has != one.needed
    ]


def _file(image: Path) -> Iterator[Difference]:
    made, whole = read_sidecar(image), size_by_header(image)
    size = made.bytes if made is not None and image.is_file() else whole
    if size is not None:
        yield Difference("size", f"{image.stat().st_size} bytes", f"{size} bytes")
    if made is not None and image.is_file() and image.stat().st_size == made.bytes:
        yield Difference("sha256", hash_file(image)[:12], made.sha256[:12])


def _packages(labels: dict[str, str]) -> Iterator[Difference]:
    lock = definitions() / LOCK
    torch = labels.get("neobert.torch", "unknown")
    locked = locked_version(lock, "torch")
    yield Difference("torch", torch, torch if torch.partition("+")[0] == locked else locked)
    yield Difference("lock", labels.get("neobert.lock", "unknown")[:12], sha256_text(lock)[:12])
    python = labels.get("neobert.python", "unknown")
    oldest = about()["Requires-Python"]
    yield Difference("python", python, python if _at_least(python, oldest) else oldest)


def _at_least(python: str, oldest: str) -> bool:
    numbers = [tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (python, oldest)]
    return numbers[0] >= numbers[1]


def _needs(labels: dict[str, str], needs: Needs) -> Iterator[Difference]:
    if needs.gpus and labels.get("neobert.cuda", "none") == "none":
        yield Difference("GPUs", "PyTorch for CPUs", "PyTorch for CUDA (the recipe asks for GPUs)")
    if needs.deepspeed and "deepspeed" not in labels.get("neobert.extras", "").split(","):
        yield Difference("deepspeed", "no", "yes (the recipe uses it)")


def _code(labels: dict[str, str], source: Source) -> Iterator[Difference]:
    image = "org.opencontainers.image"
    if labels.get("neobert.source") == source.digest:  # then it is of no interest which commit it was built from
        return
    yield Difference("version", labels.get(f"{image}.version", "unknown"), source.version, note=True)
    commit, needed = labels.get(f"{image}.revision", "unknown"), source.commit
    yield Difference("commit", _state(commit, labels.get("neobert.dirty")), _state(needed, source.dirty), note=True)
    yield Difference("code", labels.get("neobert.source", "unknown")[:12], source.digest[:12], note=True)


def _state(commit: str, dirty: str | None) -> str:
    return commit[:12] + (" with changes" if dirty == "yes" else "")
