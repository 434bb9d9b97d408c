"""The two definitions hold together, and hold what the code relies on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.image import host, project
from slurm.image.definitions import DEFINITION, SHARED, arguments, make_spec, parse_base
from slurm.image.host import debian_mirror
from slurm.image.wheelhouse import SOURCE_ONLY
from tests.containers.plugin import ROOT

CPU, GPU = (ROOT / DEFINITION[kind] for kind in ("cpu", "gpu"))
PINNED = ("torch", "deepspeed", "xformers", "transformers", "pip", "setuptools")


def shared_part(definition: Path) -> str:
    text = definition.read_text()
    return text[text.index("\n%files") :]


def test_all_but_the_base_is_the_same_text() -> None:
    assert shared_part(CPU) == shared_part(GPU)
    for name in (*SHARED, "constraints.txt"):
        assert f"    {name} /opt/neobert-image/\n" in shared_part(CPU)


def test_they_take_the_same_arguments_but_for_the_base() -> None:
    assert set(arguments(CPU)) == set(arguments(GPU)) - {"BOOTSTRAP"}
    assert set(arguments(CPU)["EXTRAS"].split(",")) <= set(arguments(GPU)["EXTRAS"].split(","))
    assert {"train", "eval", "deepspeed", "gpu"} <= set(arguments(CPU)["EXTRAS"].split(","))


def test_the_default_base_has_the_locked_torch() -> None:
    spec = make_spec("gpu")
    assert spec.bootstrap == "docker"
    assert f":{spec.torch}-" in spec.base


@pytest.mark.parametrize("package", PINNED)
def test_the_lock_has_what_the_images_need(package: str) -> None:
    assert f"\n{package}==" in (ROOT / "constraints.txt").read_text()


def test_the_scripts_are_valid_shell() -> None:
    for name in SHARED:
        if name.endswith(".sh"):
            subprocess.run(["sh", "-n", ROOT / name], check=True)


def test_bases(tmp_path: Path) -> None:
    image = tmp_path / "base.sif"
    image.touch()
    assert parse_base(str(image)) == ("localimage", str(image))
    assert parse_base(str(tmp_path)) == ("localimage", str(tmp_path))
    assert parse_base(f"oci-archive://{image}") == ("oci-archive", str(image))
    assert parse_base("docker://registry.example/team/pytorch:26.01") == (
        "docker",
        "registry.example/team/pytorch:26.01",
    )
    assert parse_base("pytorch/pytorch:2.13.0") == ("docker", "pytorch/pytorch:2.13.0")
    with pytest.raises(ConfigError, match="no such file"):
        parse_base("./base")


def test_the_digest_follows_the_base_image(tmp_path: Path) -> None:
    image = tmp_path / "base.sif"
    image.write_text("one")
    first = make_spec("gpu", str(image)).digest()
    image.write_text("another")
    assert make_spec("gpu", str(image)).digest() != first != make_spec("gpu").digest()
    assert make_spec("gpu", python="3.11").digest() != make_spec("gpu").digest()


def test_the_digest_of_the_code_passes_over_what_python_leaves_behind() -> None:
    source = project.find_source()
    assert source.checkout
    assert len(source.digest) == 64
    assert source == project.find_source()


def test_what_is_built_from_source_is_locked() -> None:
    assert all(f"\n{name}==" in (ROOT / "constraints.txt").read_text() for name in SOURCE_ONLY)


def test_a_machine_without_a_mirror_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_distribution", lambda: "fedora")
    with pytest.raises(ConfigError, match="name one with --mirror URL"):
        debian_mirror()


TARGETS = """\
https://mirror.example/debian-security bookworm-security
cdrom:[Debian] bookworm
https://mirror.example/debian bookworm
https://other.example/debian bookworm
"""


def test_the_mirror_is_the_first_of_apts_releases_that_has_a_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\ncat <<'E'\n{TARGETS}E\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(host, "_distribution", lambda: "debian")
    assert debian_mirror() == "https://mirror.example/debian"
    (tmp_path / "apt-get").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="apt knows no mirror of a Debian release: name one with --mirror URL"):
        debian_mirror()


def test_a_user_without_an_entry_in_the_password_database_goes_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_000_000)
    assert host.user_name() == "3000000"
    assert not host.has_range()
