"""Options and plugins of the whole suite."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.cluster.plugin", "tests.containers.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden job scripts anew")
