"""The narrow door between the two packages, and what the launcher may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            found.add(node.module or "")
    return found


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"the package {package} has no files"
    return found


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", files("slurm"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_launcher_imports_only_the_settings_of_neobert(path: Path) -> None:
    for module in imports(path):
        assert not inside(module, "neobert") or inside(module, "neobert.config"), f"{path} imports {module}"


@pytest.mark.parametrize("path", files("neobert"), ids=lambda path: str(path.relative_to(ROOT)))
def test_neobert_imports_nothing_of_the_launcher(path: Path) -> None:
    for module in imports(path):
        assert not inside(module, "slurm"), f"{path} imports {module}"


HEAVY = {"torch", "transformers", "datasets", "deepspeed", "accelerate", "numpy", "scipy", "submitit"}


@pytest.mark.parametrize("path", files("slurm"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_the_launcher_loads_anything_heavy(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    code = f"import {module}, sys; print(*sorted(set(sys.modules) & {HEAVY}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.split() == []


def test_the_command_loads_nothing_but_click_before_it_knows_what_to_do() -> None:
    code = (
        "import slurm.cli, sys; print(*sorted(set(sys.modules) & {'yaml', 'jinja2', 'pydantic', 'rich', 'slurm.plan'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.split() == []
