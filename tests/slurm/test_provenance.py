"""What was submitted is what runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import provenance
from slurm.provenance import snapshot_code
from slurm.rundir import RunDir

GOLDEN = Path(__file__).with_name("golden")


def test_the_snapshot_is_what_a_trial_imports_also_where_the_source_lies(tmp_path: Path) -> None:
    archive = snapshot_code(RunDir(tmp_path))
    (tmp_path / "neobert").mkdir()
    (tmp_path / "neobert" / "__init__.py").write_text("raise SystemExit('the current directory went before')")
    exports = re.search(r"^export (PYTHONPATH=.*)$", (GOLDEN / "local.sh").read_text(), re.MULTILINE)
    assert exports
    variables = dict(word.split("=", 1) for word in exports[1].split()) | {"PYTHONPATH": str(archive)}
    command = [sys.executable, "-m", "neobert", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code = "import neobert; print(neobert.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert done.stdout.startswith(str(archive))


def test_equal_code_gives_one_equal_file_and_changed_code_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "neobert"
    source.mkdir()
    (source / "__init__.py").write_text("VALUE = 1\n")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_bytes(b"x")
    spec = type("Spec", (), {"origin": str(source / "__init__.py")})
    monkeypatch.setattr(provenance.importlib.util, "find_spec", lambda name: spec)
    run = RunDir(tmp_path / "run")
    first = snapshot_code(run)
    data = first.read_bytes()
    (source / "__init__.py").touch()
    assert snapshot_code(run) == first
    assert first.read_bytes() == data
    (source / "__init__.py").write_text("VALUE = 2\n")
    assert snapshot_code(run) != first
    assert first.read_bytes() == data, "queued jobs keep what they were submitted with"


def test_a_git_checkout_is_recorded_with_its_uncommitted_changes(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        options = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *options, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("old\n")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "file").write_text("new\n")
    record = provenance.provenance(tmp_path, Path("code/x.zip"), [])
    assert len(record["git"]["commit"]) == 40
    assert "+new" in record["git"]["diff"]
    assert record["git"]["diff_complete"]


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # temporary files may lie in one
    assert provenance.provenance(tmp_path, Path("code/x.zip"), [])["git"] is None
