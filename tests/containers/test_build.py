"""`recipe image build`, with a definition of a few seconds and the real program."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.containers.conftest import Checkout


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sidecar(checkout: Checkout) -> dict[str, object]:
    data: dict[str, object] = json.loads(Path(f"{checkout.image}.json").read_text())
    return data


def test_an_image_is_built_again_only_when_something_changed(checkout: Checkout) -> None:
    first = checkout.build()
    assert first.returncode == 0, first.stderr
    assert f"{checkout.image}: " in first.stdout
    assert checkout.files() == {"image.sif", "image.sif.json"}
    made = sidecar(checkout)
    assert made["sha256"] == sha256(checkout.image)
    assert made["bytes"] == checkout.image.stat().st_size

    begin = checkout.image.stat().st_mtime_ns
    again = checkout.build()
    assert "up to date" in again.stdout
    assert checkout.image.stat().st_mtime_ns == begin

    with (checkout.root / "neobert" / "__init__.py").open("a") as code:
        code.write("# a change\n")
    assert "up to date" in checkout.build("--any-code").stdout
    newer = checkout.build()
    assert "up to date" not in newer.stdout
    assert checkout.image.stat().st_mtime_ns != begin

    checkout.post("echo another definition")
    assert "up to date" not in checkout.build("--any-code").stdout


def test_what_was_cut_off_or_has_no_record_is_built_again(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    os.truncate(checkout.image, 1000)
    assert "up to date" not in checkout.build().stdout
    assert sidecar(checkout)["bytes"] == checkout.image.stat().st_size
    Path(f"{checkout.image}.json").write_text("{")
    assert "up to date" not in checkout.build().stdout


def test_two_builds_at_once_are_one(checkout: Checkout) -> None:
    counter = checkout.root / "out" / "builds"
    counter.parent.mkdir()
    checkout.post("sleep 3")
    words = ("build", "cpu", "--force", "--output", checkout.image)
    running = [checkout.start(*words) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    built = [out for out, _ in said if "in all" in out]
    waited = [out for out, _ in said if "waiting for it" in out and "up to date" in out]
    assert len(built) == len(waited) == 1, said
    assert sidecar(checkout)["sha256"] == sha256(checkout.image)


def test_a_build_that_fails_leaves_the_old_image_and_shows_the_log(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    before = sha256(checkout.image)
    checkout.post("echo the reason; exit 3")
    failed = checkout.build()
    assert failed.returncode == 1
    assert "the reason" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert f"the whole log: {checkout.image}.log" in failed.stderr
    assert "the reason" in Path(f"{checkout.image}.log").read_text()
    assert checkout.files() == {"image.sif", "image.sif.json", "image.sif.log"}
    assert sha256(checkout.image) == before == sidecar(checkout)["sha256"]


def test_a_build_that_is_ended_leaves_nothing(checkout: Checkout) -> None:
    checkout.post("sleep 60")
    process = checkout.start("build", "cpu", "--output", checkout.image)
    assert process.stdout is not None
    for line in process.stdout:
        if "builds (its output" in line:
            break
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert checkout.files() <= {"image.sif.log"}


def test_labels_name_the_commit_and_whether_the_code_differs_from_it(checkout: Checkout) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(["git", *identity, *words], cwd=checkout.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    assert checkout.build().returncode == 0
    labels = sidecar(checkout)["labels"]
    assert isinstance(labels, dict)
    assert labels["org.opencontainers.image.revision"] == git("rev-parse", "HEAD")
    assert labels["neobert.dirty"] == "no"

    with (checkout.root / "slurm" / "__init__.py").open("a") as code:
        code.write("# a change\n")
    assert checkout.build().returncode == 0
    labels = sidecar(checkout)["labels"]
    assert isinstance(labels, dict)
    assert labels["neobert.dirty"] == "yes"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gpu", "--base", "missing.sif"), "--base missing.sif: there is no such file"),
        (("gpu", "--base", "docker://"), "--base docker://: expected docker://NAME:TAG"),
        (("gpu", "--base", "oci-archive://missing.tar"), "there is no file missing.tar"),
        (("gpu", "--python", "3"), "--python 3: expected the base image's version of Python, such as 3.12"),
        (("gpu", "--mirror", "http://x"), "--mirror is for the CPU image"),
        (("cpu", "--base", "docker://x"), "--base is for the GPU image"),
        (("cpu", "--output", "."), "is a directory"),
        (("cpu", "--output", "a,b.sif"), "splits paths at ':' and ','"),
    ],
)
def test_a_mistake_gives_one_message(checkout: Checkout, words: tuple[str, ...], message: str) -> None:
    answer = checkout.run("build", *words)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_packages_that_pip_cannot_get_are_named(checkout: Checkout) -> None:
    lock = checkout.root / "constraints.txt"
    lock.write_text(lock.read_text().replace("deepspeed==", "deepspeed==999."))
    failed = checkout.build()
    assert failed.returncode == 1
    assert "pip cannot build wheels" in failed.stderr
    assert "deepspeed==999." in failed.stderr
    assert not checkout.image.exists()


def test_without_the_program_the_message_says_what_to_do(checkout: Checkout, tmp_path: Path) -> None:
    answer = checkout.build(PATH="/nonexistent")
    assert answer.returncode == 2
    assert "there is no program 'apptainer' on the PATH" in answer.stderr
