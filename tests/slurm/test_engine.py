"""Apptainer and SingularityCE are told apart by what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.engine import Engine, find_engine, parse_version


@pytest.mark.parametrize(
    ("text", "kind", "version"),
    [
        ("apptainer version 1.4.5", "apptainer", (1, 4, 5)),
        ("apptainer version 1.3.0-1.el9\n", "apptainer", (1, 3, 0)),
        ("apptainer version 1.1.0~rc.2", "apptainer", (1, 1, 0)),
        ("singularity-ce version 4.1.3", "singularity-ce", (4, 1, 3)),
        ("singularity-ce version 4.3.1-1.el9", "singularity-ce", (4, 3, 1)),
        ("singularity-ce version v3.11.4", "singularity-ce", (3, 11, 4)),
    ],
)
def test_versions(text: str, kind: str, version: tuple[int, ...]) -> None:
    assert parse_version("singularity", text) == Engine("singularity", kind, version)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apptainer version 1.0.3", "`p` is Apptainer 1.0.3: 1.1 or newer is needed"),
        ("singularity-ce version 3.9.2", "`p` is SingularityCE 3.9.2: 3.10 or newer is needed"),
        ("singularity version 3.8.7", "`p` is Singularity 3.8.7, which is no longer maintained"),
        ("podman version 5.0", "`p --version` says 'podman version 5.0': expected Apptainer 1.1 or newer"),
        ("", "`p --version` says ''"),
    ],
)
def test_what_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_version("p", text)
    assert message in str(error.value)


def test_variables_of_the_program_and_its_name() -> None:
    apptainer, singularity = Engine("a", "apptainer", (1, 4)), Engine("s", "singularity-ce", (4, 1))
    assert (apptainer.settings_prefix, singularity.settings_prefix) == ("APPTAINER_", "SINGULARITY_")
    assert (str(apptainer), str(singularity)) == ("Apptainer 1.4", "SingularityCE 4.1")


@pytest.mark.parametrize(
    ("engine", "has"),
    [
        (Engine("a", "apptainer", (1, 1, 9)), False),
        (Engine("a", "apptainer", (1, 2, 0)), True),
        (Engine("s", "singularity-ce", (3, 11)), False),
        (Engine("s", "singularity-ce", (4, 0)), True),
    ],
)
def test_build_arguments(engine: Engine, has: bool) -> None:
    assert engine.has_build_arguments is has


def program(folder: Path, text: str) -> str:
    path = folder / "singularity"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_name_of_the_file_says_nothing(tmp_path: Path) -> None:
    path = program(tmp_path, '[ "$1" = --version ] && echo apptainer version 1.4.5')
    assert find_engine(path) == Engine(path, "apptainer", (1, 4, 5))


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo broken >&2; exit 3", "ended with 3 and said: broken"), ("exit 1", "ended with 1 and said: nothing")],
)
def test_a_program_that_does_not_run(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_engine(program(tmp_path, script))


def test_no_program_and_no_executable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no program 'no-such-program' on the PATH"):
        find_engine("no-such-program")
    (tmp_path / "text").write_text("")
    with pytest.raises(ConfigError, match="does not run"):
        find_engine(str(tmp_path / "text"))
