"""The one way to skip a test: with what is missing, and the command that enables it. In CI the test fails instead."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must run this test, but {reason}")
    pytest.skip(reason)


def need(there: bool, what: str, command: str) -> None:
    if not there:
        skip(f"{what} is missing: run `{command}`")
