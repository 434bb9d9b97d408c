"""Data for pytest: `pytest_plugins = ["tests.data"]` in the topmost conftest.py.

- `glue_data`: a directory in the layout of `download_glue_data.py`.
- `text_file`: a text file with one document a line.

Both are generated. NEOBERT_TEST_DATA names a directory with real files, in `glue/` and `corpus/`: then each test that
takes a fixture runs on these too. They may lack tasks and sets, as licences keep some from being passed on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import document, write_glue_directory

VARIABLE = "NEOBERT_TEST_DATA"
ROWS = 300
"""Rows of each generated training set."""

ODD = (
    'He said "no" — twice.',
    "naïve café, Ōsaka 2026; 3 % < 4 €",
    "a\u2028b\x85c \U0001f600",
    "'unbalanced \" quotes",
    "...",
)
"""Lines that readers of text files get wrong."""


def cases() -> list[str]:
    return ["generated", *(["real"] if os.environ.get(VARIABLE) else [])]


def real(folder: str) -> Path:
    return Path(os.environ[VARIABLE]).resolve() / folder


def pytest_configure() -> None:
    for folder in ("glue", "corpus") if os.environ.get(VARIABLE) else ():
        if not real(folder).is_dir():
            raise pytest.UsageError(f"{VARIABLE}={os.environ[VARIABLE]}: expected a directory with glue/ and corpus/")


@pytest.fixture(scope="session", params=cases())
def glue_data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        return real("glue")
    directory = tmp_path_factory.mktemp("data") / "glue"
    for name in TASKS:
        write_glue_directory(directory, name, ROWS)
    return directory


@pytest.fixture(scope="session", params=cases())
def text_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        return min(real("corpus").glob("*.txt"), key=lambda path: path.stat().st_size)
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(
        "".join(f"{line}\n" for line in (*ODD, *map(document, range(ROWS)))), encoding="utf-8", newline="\n"
    )
    return path
