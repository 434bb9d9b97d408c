"""The program that runs images: Apptainer or SingularityCE, told apart by what it says of itself.

The program's file name says nothing: on many sites `singularity` is a link to Apptainer.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Literal

from neobert.config import ConfigError

Kind = Literal["apptainer", "singularity-ce"]

NAMES: dict[Kind, str] = {"apptainer": "Apptainer", "singularity-ce": "SingularityCE"}
OLDEST: dict[Kind, tuple[int, ...]] = {"apptainer": (1, 1), "singularity-ce": (3, 10)}
"""The first of each with `--no-eval`, without which the values of variables are run through a shell."""

ARGUMENTS_SINCE: dict[Kind, tuple[int, ...]] = {"apptainer": (1, 2), "singularity-ce": (4, 0)}
"""The first of each that fills `{{ name }}` in definition files."""


@dataclass(frozen=True)
class Engine:
    """A program that was asked for its version."""

    program: str
    kind: Kind
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{NAMES[self.kind]} {dotted(self.version)}"

    @property
    def settings_prefix(self) -> str:
        """What the names of the program's own variables begin with, such as `..._CACHEDIR` and `..._TMPDIR`."""
        return "APPTAINER_" if self.kind == "apptainer" else "SINGULARITY_"

    @property
    def has_build_arguments(self) -> bool:
        return self.version >= ARGUMENTS_SINCE[self.kind]


def find_engine(program: str = "apptainer") -> Engine:
    """Asks `program` what it is; raises `ConfigError` if it is not there, not known, or too old."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            f"there is no program '{program}' on the PATH: load the site's module for it (`module load apptainer` on "
            "many sites), or install Apptainer (https://apptainer.org)"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"`{program} --version` does not run: {error}") from None
    if answer.returncode != 0:
        said = (answer.stderr.strip() or answer.stdout.strip() or "nothing")[-500:]
        raise ConfigError(f"`{program} --version` ended with {answer.returncode} and said: {said}")
    return parse_version(program, answer.stdout)


def parse_version(program: str, text: str) -> Engine:
    """What `program --version` printed, as an `Engine`; raises `ConfigError` for what cannot be used."""
    match = re.match(r"(apptainer|singularity-ce|singularity) version v?(\d+(?:\.\d+)*)", text.strip())
    if match is None:
        raise ConfigError(
            f"`{program} --version` says {text.strip()[:200]!r}: expected Apptainer {dotted(OLDEST['apptainer'])} or "
            f"newer, or SingularityCE {dotted(OLDEST['singularity-ce'])} or newer"
        )
    name, version = match[1], tuple(int(part) for part in match[2].split("."))
    if name == "singularity":  # before Apptainer and SingularityCE parted ways
        raise ConfigError(
            f"`{program}` is Singularity {dotted(version)}, which is no longer maintained: Apptainer "
            f"{dotted(OLDEST['apptainer'])} or newer is needed, or SingularityCE {dotted(OLDEST['singularity-ce'])}"
        )
    kind: Kind = "apptainer" if name == "apptainer" else "singularity-ce"
    if version < OLDEST[kind]:
        raise ConfigError(f"`{program}` is {NAMES[kind]} {dotted(version)}: {dotted(OLDEST[kind])} or newer is needed")
    return Engine(program, kind, version)


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
