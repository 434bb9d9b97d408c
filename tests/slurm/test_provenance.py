"""What was submitted is what runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm import provenance
from slurm.provenance import snapshot_code, submitted_code
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


def git(directory: Path, *words: str) -> None:
    options = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *options, *words], cwd=directory, check=True, capture_output=True)


def commit(directory: Path, files: Mapping[str, str]) -> None:
    """Make the directory a repository with these files."""
    git(directory, "init")
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
        git(directory, "add", "--force", name)
    git(directory, "commit", "-m", "first")


def test_a_git_checkout_is_recorded_with_its_uncommitted_changes(tmp_path: Path) -> None:
    commit(tmp_path, {"file": "old\n"})
    (tmp_path / "file").write_text("new\n")
    record = provenance.provenance(tmp_path, Path("code/x.zip"), [])
    assert len(record["git"]["commit"]) == 40
    assert "+new" in record["git"]["diff"]
    assert record["git"]["diff_complete"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the place of ours."""
    source = tmp_path / "neobert"
    source.mkdir()
    (source / "__init__.py").write_text("VALUE = 1\n")
    spec = type("Spec", (), {"origin": str(source / "__init__.py")})
    monkeypatch.setattr(provenance.importlib.util, "find_spec", lambda name: spec)
    return source


def test_code_that_somebody_has_changed_in_the_run_is_not_submitted_again(package: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    code = snapshot_code(run)
    before = code.read_bytes()
    run.provenance.write_text(json.dumps({"code": code.name}))
    assert submitted_code(run) == code
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("neobert/__init__.py", "import os\nos.system('id')\n")
    with pytest.raises(ConfigError, match="has changed: `recipe submit` takes today's"):
        submitted_code(run)
    assert snapshot_code(run).read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"PK\x05\x06", b"no zip at all"])
def test_damaged_code_is_written_again(package: Path, tmp_path: Path, damage: bytes) -> None:
    code = snapshot_code(RunDir(tmp_path / "run"))
    before = code.read_bytes()
    code.write_bytes(damage)
    assert snapshot_code(RunDir(tmp_path / "run")).read_bytes() == before


def test_neither_secrets_nor_what_a_link_leads_to_get_into_the_code(package: Path, tmp_path: Path) -> None:
    (package / ".env").write_text("HF_TOKEN=hf_secret\n")
    (package / "id_ed25519").write_text("private")
    run = RunDir(tmp_path / "run")
    assert zipfile.ZipFile(snapshot_code(run)).namelist() == ["neobert/__init__.py"]
    record = provenance.provenance(tmp_path, None, [])
    assert record["code_left_out"] == [str(package / ".env"), str(package / "id_ed25519")]
    assert f"left out of the code that trials run: {package / '.env'}, " in str(provenance.left_out(record))
    (package / "notes.py").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=r"notes.py is a link out of the package, to /etc/passwd: put a copy"):
        snapshot_code(run)


SECRETS = {
    ".env": "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz\n",
    "deploy/prod.env": "X=very-secret\n",
    "keys/id_rsa": "very-secret\n",
    "settings.yaml": "wandb_api_key: very-secret-1\nlr: 0.1\n",
    "run.sh": "export AWS_SECRET_ACCESS_KEY=very/secret+1\n",
    "train.py": 'login(token="hf_verysecretverysecretverysecret")\nseed = 1\n',
    "db.py": 'URL = "postgresql://me:very-secret@db/x"\n',
    "password with blank.txt": "PASSWORD = 'very-secret'\n",
}


def test_secrets_are_left_out_of_the_recorded_changes_and_named(tmp_path: Path) -> None:
    commit(tmp_path, dict.fromkeys(SECRETS, "\n"))
    for name, text in SECRETS.items():
        (tmp_path / name).write_text(text)
    record = provenance.provenance(tmp_path, None, [])
    assert not re.search("very.?secret|hf_abc", record["git"]["diff"])
    assert "+lr: 0.1" in record["git"]["diff"]
    assert "+seed = 1" in record["git"]["diff"]
    assert len(record["git"]["left_out"]) == len(SECRETS)
    assert ".env" in record["git"]["left_out"]
    assert "settings.yaml: 1 line" in record["git"]["left_out"]
    assert not record["git"]["diff_complete"]
    assert "left out of the uncommitted changes in provenance.json: .env, " in str(provenance.left_out(record))


def test_ordinary_code_about_tokens_is_no_secret(tmp_path: Path) -> None:
    lines = [
        "pad_token = tokenizer.pad_token", "mask_token: str", 'pad_token="[PAD]"', "max_tokens = 4096",
        "token = next(it)", "key = name", "for token in tokens:", 'eos_token = "</s>"', "password = None",
        "secret = os.environ['X']",
        "HF_TOKEN=$HF_TOKEN", "secrets: [HF_TOKEN]", 'token = f"{name}"',
    ]  # fmt: skip
    commit(tmp_path, {"model.py": "\n"})
    (tmp_path / "model.py").write_text("\n".join(lines))
    record = provenance.provenance(tmp_path, None, [])
    assert record["git"]["left_out"] == []
    assert all(f"+{line}" in record["git"]["diff"] for line in lines)


def test_nothing_that_a_repository_configures_is_run(tmp_path: Path) -> None:
    """Its own programs for differences, filters and monitors, and its hooks; the changes are recorded all the same."""
    repository, traces = tmp_path / "repository", tmp_path / "traces"
    repository.mkdir()
    commit(repository, {"a.txt": "old\n", "b.md": "old\n"})
    program = tmp_path / "program.sh"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >>{traces}\ncat\n')
    program.chmod(0o755)
    shutil.copy(program, repository / ".git/hooks/post-index-change")
    for key in (
        "diff.external",
        "core.fsmonitor",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.clean",
        "filter.x.process",
    ):
        git(repository, "config", key, str(program))
    git(repository, "config", "filter.x.required", "true")
    (repository / ".gitattributes").write_text("*.md diff=x filter=x\n")
    for name in ("a.txt", "b.md"):
        (repository / name).write_text("new text\n")
    record = provenance.provenance(repository, None, [])
    assert record["git"]["diff"].count("+new text") == 2
    assert not traces.exists(), traces.read_text()


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # temporary files may lie in one
    assert provenance.provenance(tmp_path, Path("code/x.zip"), [])["git"] is None
