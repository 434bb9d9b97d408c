"""What an image says of itself: its labels, and the file beside it that records its digest."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, private
from slurm.engine import Engine

HEADER = 128
"""Bytes of a SIF file's header."""

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


def size_by_header(image: Path) -> int | None:
    """The bytes that a whole image has, as its first ones tell; None for what is no SIF file, such as a directory.

    Where the data begins and how long it is are the last two numbers of the header:
    https://github.com/apptainer/sif (`header` in pkg/sif/sif.go).
    """
    if not image.is_file():
        return None
    with image.open("rb") as stream:
        header = stream.read(HEADER)
    if len(header) < HEADER or not header[32:].startswith(b"SIF_MAGIC\0"):
        return None
    begin, length = struct.unpack("<2q", header[-16:])
    return int(begin + length)


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
    with private.create(temporary) as file:
        file.write(f"{json.dumps(data, indent=2)}\n".encode())
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
        labels = json.loads(answer.stdout)["data"]["attributes"].get("labels") or {}  # an image may have none at all
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"`{engine.program} inspect --json --labels {image}` printed no JSON: {answer.stdout[:200]!r}"
        ) from None
    return {key: value for key, value in labels.items() if key.startswith(OURS)}
