"""How a command is started inside an image: Apptainer's arguments, as a list of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neobert.config import ConfigError
from slurm.cluster import Container


def exec_command(
    container: Container, image: Path, binds: Sequence[Path], workdir: Path, gpus: bool, command: Sequence[str]
) -> list[str]:
    """`apptainer exec ...` for `command`; raises `ConfigError` for a path that `--bind` cannot express."""
    words = [container.runtime, "exec", "--no-eval", "--pwd", str(workdir)]
    if gpus:
        words.append("--nv")
    for path in dict.fromkeys(map(str, binds)):
        if set(path) & set(":,\\"):
            raise ConfigError(f"{path} cannot be bound into a container: Apptainer splits it at ':' and ','")
        words += ["--bind", path]
    for bind in container.binds:
        words += ["--bind", bind]
    return [*words, *container.flags, str(image), *command]
