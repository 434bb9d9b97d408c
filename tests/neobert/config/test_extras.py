"""What the project's extras promise, and that nothing sends a user to a package index for this project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from neobert.config.extras import install

ROOT = Path(__file__).parents[3]
CONTAINERS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
TEXTS = ("README.md", "CONTRIBUTING.md", "Makefile", "Apptainer.def", "constraints.txt")
FOLDERS = ("docs", "recipes", "containers", "benchmarks", "neobert", "slurm")
BY_NAME = r"pip3? +(?:install|download|wheel)\b[^`\n]*neobert[-_]slurm|neobert[-_]slurm\[[^\]]*\](?! @ )"


def extras() -> dict[str, list[str]]:
    declared: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    return declared


def texts() -> dict[Path, str]:
    paths = [ROOT / name for name in TEXTS] + [path for name in FOLDERS for path in (ROOT / name).rglob("*.*")]
    return {path: path.read_text(encoding="utf-8") for path in paths if path.suffix != ".pyc" and path.is_file()}


def test_the_readme_promises_the_extras_that_there_are() -> None:
    table = (ROOT / "README.md").read_text().split("| extra | for |")[1].split("\n\n")[0]
    promised = [name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z]+)`", row.split("|")[1])]
    assert sorted(promised) == sorted(extras())


def test_each_extra_that_a_message_or_a_page_names_is_there() -> None:
    named = {
        name
        for text in texts().values()
        for words in re.findall(r"""\binstall\(("[^)]*"|'[^)]*')\)|\.\[([a-z,]+)\]["']""", text)
        for name in re.findall(r"[a-z]+", "".join(words))
    }
    assert {"train", "eval", "deepspeed", "submitit"} <= named <= set(extras())


def test_nothing_installs_this_project_by_its_name() -> None:
    """Nobody has registered it: whoever does would run code on the machines of users."""
    assert {path: found for path, text in texts().items() if (found := re.findall(BY_NAME, text))} == {}
    assert re.search(BY_NAME, "pip install 'neobert-slurm'")
    assert re.search(BY_NAME, "brings neobert_slurm[eval]")


def test_a_package_that_is_missing_comes_from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONTAINERS:
        monkeypatch.delenv(name, raising=False)
    assert install("train", "eval") == "run `pip install -c constraints.txt -e '.[train,eval]'` in the checkout"


@pytest.mark.parametrize("variable", CONTAINERS)
def test_a_package_that_an_image_lacks_comes_with_another_image(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "/images/neobert.sif")
    assert install("eval") == "build the image with eval in EXTRAS of its definition (`recipe image build`)"
