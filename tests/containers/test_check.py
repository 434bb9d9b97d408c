"""`recipe image check` tells every difference, and which of them matter."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.engine import Engine, find_engine
from slurm.image import check, definitions, project
from slurm.image.check import Needs, differences, needs_of
from slurm.image.definitions import LOCK, locked_version, sha256_text
from slurm.image.labels import size_by_header
from slurm.image.project import Source
from tests.containers.conftest import Checkout
from tests.containers.plugin import ROOT

HERE = Source(ROOT, True, "1.0", "a" * 40, "no", "f" * 64)


def fitting() -> dict[str, str]:
    return {
        "neobert.kind": "cpu",
        "neobert.torch": f"{locked_version(ROOT / LOCK, 'torch')}+cpu",
        "neobert.cuda": "none",
        "neobert.python": "3.12.1",
        "neobert.lock": sha256_text(ROOT / LOCK),
        "neobert.extras": "train,eval",
        "neobert.source": HERE.digest,
        "neobert.dirty": "no",
        "org.opencontainers.image.version": "1.0",
        "org.opencontainers.image.revision": "a" * 40,
    }


def compared(
    monkeypatch: pytest.MonkeyPatch, image: Path, changes: dict[str, str], needs: Needs
) -> dict[str, tuple[str, str, bool]]:
    monkeypatch.setattr(check, "read_labels", lambda engine, path: fitting() | changes)
    engine = None  # only `read_labels` would use it
    found = differences(engine, image, HERE, needs)  # type: ignore[arg-type]
    return {one.what: (one.has, one.needed, one.note) for one in found}


@pytest.mark.parametrize(
    ("changes", "needs", "expected"),
    [
        ({}, Needs(), {}),
        ({"neobert.cuda": "13.0", "neobert.extras": "deepspeed"}, Needs(gpus=True, deepspeed=True), {}),
        ({"neobert.torch": "2.0.1+cu117"}, Needs(), {"torch": ("2.0.1+cu117", "2.13.0", False)}),
        ({"neobert.lock": "0" * 64}, Needs(), {"lock": ("0" * 12, sha256_text(ROOT / LOCK)[:12], False)}),
        ({"neobert.python": "3.9.1"}, Needs(), {"python": ("3.9.1", ">=3.11", False)}),
        ({}, Needs(deepspeed=True), {"deepspeed": ("no", "yes (the recipe uses it)", False)}),
        (
            {"neobert.source": "0" * 64, "neobert.dirty": "yes"},
            Needs(),
            {"commit": (f"{'a' * 12} with changes", "a" * 12, True), "code": ("0" * 12, "f" * 12, True)},
        ),
    ],
)
def test_differences(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, str],
    needs: Needs,
    expected: dict[str, tuple[str, str, bool]],
) -> None:
    assert compared(monkeypatch, tmp_path / "image.sif", changes, needs) == expected


def test_an_image_that_was_cut_off_is_told_by_its_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.write_text("half")
    (tmp_path / "image.sif.json").write_text(json.dumps({"sha256": "", "bytes": 8, "labels": {}}))
    assert compared(monkeypatch, image, {}, Needs()) == {"size": ("4 bytes", "8 bytes", False)}


def test_an_image_whose_bytes_have_changed_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.write_bytes(bytes(1000))
    written = hashlib.sha256(image.read_bytes()).hexdigest()
    (tmp_path / "image.sif.json").write_text(json.dumps({"sha256": written, "bytes": 1000, "labels": {}}))
    assert compared(monkeypatch, image, {}, Needs()) == {}
    before = image.stat()
    image.write_bytes(bytes(500) + b"\1" * 64 + bytes(436))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = hashlib.sha256(image.read_bytes()).hexdigest()
    assert compared(monkeypatch, image, {}, Needs()) == {"sha256": (now[:12], written[:12], False)}


def test_an_image_that_was_cut_off_is_told_without_its_record_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"0100200" + bytes(63)
    image = tmp_path / "image.sif"
    image.write_bytes(header + struct.pack("<2q", 200, 100) + bytes(100))
    assert size_by_header(image) == 300
    assert compared(monkeypatch, image, {}, Needs()) == {"size": ("228 bytes", "300 bytes", False)}
    image.write_bytes(image.read_bytes() + bytes(72))
    assert compared(monkeypatch, image, {}, Needs()) == {}


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("grid: {deepspeed.zero_stage: [1, 2]}", Needs(deepspeed=True)),
        ("resources: {gpus_per_node: 1}", Needs(gpus=True)),
        ("grid: {seed: [1, 2]}", Needs()),
    ],
)
def test_what_a_recipe_needs_is_what_its_trials_need(tmp_path: Path, text: str, needs: Needs) -> None:
    file = tmp_path / "r.yaml"
    config = "{task_name: rte, model: {allow_random_weights: true}, data: {generated: 100}}"
    file.write_text(f"name: r\ntask: glue\nconfig: {config}\n{text}\n")
    assert needs_of(str(file)) == needs


def test_a_checkout_that_is_not_installed_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(definitions, "PROJECT", "not-installed-anywhere")
    for ask in (project.find_source, lambda: compared(monkeypatch, tmp_path / "image.sif", {}, Needs())):
        with pytest.raises(ConfigError, match=r"is not installed here, .*pip install -e"):
            ask()


@pytest.mark.parametrize(
    ("printed", "message"),
    [('{"data": {"attributes": {}}, "type": "container"}', None), ("no JSON", "printed no JSON")],
)
def test_an_image_without_labels_is_none_of_ours(tmp_path: Path, printed: str, message: str | None) -> None:
    program = tmp_path / "apptainer"
    program.write_text(f"#!/bin/sh\necho '{printed}'\n")
    program.chmod(0o755)
    engine = Engine(str(program), "apptainer", (1, 4))
    if message is not None:
        with pytest.raises(ConfigError, match=message):
            differences(engine, tmp_path, HERE, Needs())
        return
    (found,) = differences(engine, tmp_path, HERE, Needs())
    assert (found.has, found.needed) == ("none of this project's labels", "one made by `recipe image build`")


def test_the_command_on_an_image_of_another_lock(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    answer = checkout.run("check", checkout.image)
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[0] == f"{checkout.image} does not fit"
    assert "  torch: the image has unknown, needed is 2." in answer.stdout  # the tiny image has no such label
    assert "`recipe image build` makes one that does" in answer.stdout


def test_a_file_that_is_no_image(checkout: Checkout) -> None:
    assert find_engine().kind == "apptainer"
    file = checkout.root / "text.sif"
    file.write_text("no image")
    answer = checkout.run("check", file)
    assert answer.returncode == 2
    assert "cannot be read as an image" in answer.stderr
    missing = checkout.run("check", "missing.sif")
    assert missing.returncode == 2
    assert "there is no image missing.sif" in missing.stderr
