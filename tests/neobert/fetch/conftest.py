"""A small hub, what it has, and the command that fetches from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.neobert.conftest import REPOSITORY
from tests.neobert.fetch.hub import Hub

Fetch = Callable[..., subprocess.CompletedProcess[str]]

MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights " * 5000,
    "tokenizer.json": b"{}" * 10,
    "pytorch_model.bin": b"older weights",
    "onnx/model.onnx": b"weights for others",
}
TEXT = {
    f"data/{split}-{number:05d}-of-00002.jsonl": b'{"text": "%s %d"}\n' % (split.encode(), number) * 20
    for split in ("train", "validation")
    for number in range(2)
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.add("models", "tiny/model", MODEL)
    with hub.serving():
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HF_HOME."""
    return tmp_path / "hf"


@pytest.fixture
def environ(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a profile sets, which a fetch has to see through: jobs are to work offline."""
    for name in [name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def fetch(environ: dict[str, str]) -> Fetch:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "neobert", "fetch", *arguments]
        return subprocess.run(
            command, env={**environ, **more}, cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )

    return run
