"""Where Apptainer comes from, with stand-ins for apt: nothing is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("install.sh")
STAND_INS = {
    "dpkg-query": "printf installed",
    "apptainer": "test -e installed",
    "apt-cache": "test -e in-suite",
    "apt-get": 'echo "apt-get $*" >>calls; case $* in *install*) touch installed ;; esac',
    "id": "echo ${USER_ID:-0}",
}
Install = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs the script on a Debian where all but Apptainer is there: exit code, calls of apt-get, message."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "os-release").write_text("ID=debian\n")
    (tmp_path / "install.sh").write_text(SCRIPT.read_text().replace("/etc/os-release", "./os-release"))

    def run(**variables: str) -> tuple[int, list[str], str]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | variables
        done = subprocess.run(["sh", "install.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr

    return run


INSTALL = "apt-get install -q -y --no-install-recommends"


def test_what_is_there_is_not_installed_again(install: Install, tmp_path: Path) -> None:
    (tmp_path / "installed").touch()
    assert install() == (0, [], "")


@pytest.mark.parametrize("variables", [{}, {"APPTAINER_PACKAGE": "apptainer.deb"}])
def test_debians_own_package_goes_before_a_file(install: Install, tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "in-suite").touch()
    (tmp_path / "apptainer.deb").touch()
    code, calls, _ = install(**variables)
    assert (code, calls) == (0, ["apt-get update -q", f"{INSTALL} apptainer"])


def test_without_one_a_package_is_installed_from_its_file(install: Install, tmp_path: Path) -> None:
    (tmp_path / "apptainer.deb").touch()
    code, calls, _ = install(APPTAINER_PACKAGE="apptainer.deb")
    assert (code, calls[-1]) == (0, f"{INSTALL} {tmp_path / 'apptainer.deb'}")


def test_without_one_a_script_may_install_it(install: Install, tmp_path: Path) -> None:
    (tmp_path / "script.sh").write_text("touch installed\n")
    code, calls, _ = install(APPTAINER_PACKAGE="script.sh")
    assert (code, calls) == (0, ["apt-get update -q"])


def test_without_either_the_message_says_where_to_get_it_and_how_to_go_on(install: Install) -> None:
    code, calls, message = install()
    assert (code, calls) == (2, ["apt-get update -q"])
    assert message == (
        "install.sh: apt knows no package apptainer here: get one from "
        "https://github.com/apptainer/apptainer/releases, and run: sudo APPTAINER_PACKAGE=FILE bash install.sh\n"
    )


def test_a_file_that_is_not_there_is_named(install: Install, tmp_path: Path) -> None:
    code, _, message = install(APPTAINER_PACKAGE="none.deb")
    assert (code, message) == (2, f"install.sh: there is no file {tmp_path / 'none.deb'} (APPTAINER_PACKAGE)\n")


def test_an_ordinary_user_gets_the_command_for_root(install: Install) -> None:
    code, calls, message = install(USER_ID="1000")
    assert (code, calls) == (2, [])
    assert message == "install.sh: installing Apptainer needs root: sudo bash install.sh\n"


def test_another_distribution_is_told_where_apptainer_comes_from(install: Install, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=fedora\n")
    code, calls, message = install()
    assert (code, calls) == (2, [])
    assert "this is 'fedora' and not Debian: install Apptainer as https://apptainer.org says" in message


def test_an_installation_that_fails_is_shown(install: Install, tmp_path: Path) -> None:
    (tmp_path / "in-suite").touch()
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho no network; exit 1\n")
    code, _, message = install()
    assert code == 1
    assert message.splitlines()[-2:] == [
        "no network", "install.sh: Apptainer could not be installed (the output is above)",
    ]  # fmt: skip
