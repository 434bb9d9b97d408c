"""Options and plugins of the whole suite."""

from __future__ import annotations

import os

import pytest

# Before the first test file imports torch and transformers, wherever it lies.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several of these run at once on few cores
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # as the command itself does

pytest_plugins = ["tests.cluster.plugin", "tests.containers.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden job scripts anew")
