"""What an image says of itself: its labels, and the file beside it that records its digest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError
from slurm.engine import Engine

OURS = ("neobert.", "org.opencontainers.image.")


@dataclass(frozen=True)
class Sidecar:
    """`IMAGE.json`: what was built, so that it is known without opening the image."""

    sha256: str
    bytes: int
    labels: Mapping[str, str]


def sidecar_path(image: Path) -> Path:
    return image.with_name(f"{image.name}.json")


def read_sidecar(image: Path) -> Sidecar | None:
    """The record beside an image; None if there is none, or none that can be read."""
    try:
        data: Any = json.loads(sidecar_path(image).read_text(encoding="utf-8"))
        return Sidecar(data["sha256"], data["bytes"], data["labels"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_sidecar(image: Path, sidecar: Sidecar, engine: Engine) -> None:
    data = {
        "schema": 1,
        "sha256": sidecar.sha256,
        "bytes": sidecar.bytes,
        "built_with": str(engine),
        "labels": dict(sidecar.labels),
    }
    target = sidecar_path(image)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)


def read_labels(engine: Engine, image: Path) -> dict[str, str]:
    """The image's own labels; raises `ConfigError` for a file that is no image."""
    if not image.exists():
        raise ConfigError(f"there is no image {image}: `recipe image build` makes one")
    words = [engine.program, "inspect", "--json", "--labels", str(image)]
    answer = subprocess.run(words, capture_output=True, text=True, errors="replace")
    if answer.returncode != 0:
        said = answer.stderr.strip().removeprefix("FATAL:").strip()[-500:]
        raise ConfigError(f"{image} cannot be read as an image (a copy that was cut off?): {said}")
    try:
        labels = json.loads(answer.stdout)["data"]["attributes"]["labels"] or {}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"`{engine.program} inspect` of {image} printed no labels: {answer.stdout[:200]!r}") from None
    return {key: value for key, value in labels.items() if key.startswith(OURS)}
