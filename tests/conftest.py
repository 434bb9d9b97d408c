"""Options and plugins of the whole suite."""

from __future__ import annotations

import os
import sys

import pytest

from tests.environment import PLACE, clean
from tests.skips import need

# Before the first test file imports torch and transformers, wherever it lies.
clean(os.environ)
os.umask(0o022)

pytest_plugins = ["tests.cluster.plugin", "tests.containers.plugin", "tests.data"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden job scripts anew")


def pytest_unconfigure() -> None:
    PLACE.cleanup()


@pytest.fixture
def root(request: pytest.FixtureRequest) -> None:
    need(os.geteuid() == 0, "root", f"sudo {sys.executable} -m pytest {request.node.nodeid}")
