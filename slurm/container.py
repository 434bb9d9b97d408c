"""What goes into a container: which directories, which environment variables, and how its start is written down.

Jobs, `recipe exec` and `recipe shell` all start containers through one script, `enter.sh`, which is rendered here and
runs on the node: only there it is known which variables Slurm has set, and which program `apptainer` really is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neobert.config import ConfigError
from slurm.cluster import Container
from slurm.shell import quote, template

PASSED = (
    "SLURM_*", "SLURMD_NODENAME", "RECIPE_*",
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "CUDA_DEVICE_*", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_CACHE_*", "CUDA_MPS_*",
    "NCCL_*", "RCCL_*", "GLOO_*", "UCX_*", "FI_*", "OMP_*", "MKL_*", "KMP_*",
    "TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "TRITON_*", "DS_*",
    "NEOBERT_CACHE", "HF_*", "TRANSFORMERS_*", "TOKENIZERS_*",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "TZ",
)  # fmt: skip
"""Variables of a job that its containers see; all others stay outside, so that no login shell changes a result.

Of CUDA those of its runtime alone: CUDA_HOME and its kin name the host's toolkit, which is not that of the image.
"""

SECRET = ("*TOKEN", "*_KEY", "*SECRET*", "*PASSWORD*", "SLURM_JWT")
"""Variables that go in only where `secrets` names them, whatever else would pass them."""

CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "TORCH_HOME", "NEOBERT_CACHE")
"""Variables that name a directory which the container needs as well."""

PACKAGES = Path("/opt/neobert")
"""Where images hold Python's packages."""


@dataclass(frozen=True)
class Entry:
    """All that a container's start depends on, but for the node and the command in it."""

    title: str
    container: Container
    image: Path
    workdir: Path
    binds: tuple[str, ...]
    code: Path | None
    """The submitted code, which goes before the image's own; None for the image's."""
    names: tuple[str, ...]
    """Variables that the recipe or the profile sets, and which therefore pass."""
    secrets: tuple[str, ...]
    scratch: str | None
    modules: tuple[str, ...]
    gpus: int
    threads: int


def enter_script(entry: Entry) -> str:
    """The text of `enter.sh`: `bash enter.sh COMMAND...` runs the command in the container."""
    container = entry.container
    gpu = {"nv": ["--nv"], "rocm": ["--rocm"], "none": []}[container.gpu] if entry.gpus else []
    return template("enter.sh.j2").render(
        title=entry.title,
        program=container.runtime,
        image=str(entry.image),
        copy_image=container.copy_image,
        workdir=str(entry.workdir),
        binds=entry.binds,
        flags=[*gpu, *container.flags],
        gpus=entry.gpus,
        threads=entry.threads,
        code=None if entry.code is None else str(entry.code),
        passed="|".join((*PASSED, *container.env)),
        names=entry.names,
        named="|".join(entry.names),
        secret="|".join(SECRET),
        secrets=entry.secrets,
        caches=(*CACHES, "TMPDIR") if "TMPDIR" in entry.names else CACHES,
        scratch=None if entry.scratch is None else expand_on_node(entry.scratch),
        scratch_variables=variables_in(entry.scratch or ""),
        modules=entry.modules,
    )


def bind_words(own: Iterable[Path], more: Iterable[str]) -> tuple[str, ...]:
    """The values of `--bind`: our own directories, without those that lie in another one, then a site's and a recipe's.

    A directory behind a symbolic link is bound where it really lies as well: the link itself may lie in a directory
    that the container has anyway, such as a home, and would point to nothing there.

    Raises `ConfigError` for a path that `--bind` cannot express, and for one over the packages of the image.
    """
    kept: list[Path] = []
    places = {place for path in own for place in (path, path.resolve())}
    for path in sorted(places, key=lambda path: (len(path.parts), path)):
        if set(str(path)) & set(":,\\"):
            raise ConfigError(f"{path} cannot be bound into a container: Apptainer splits it at ':' and ','")
        if PACKAGES.is_relative_to(path) or path.is_relative_to(PACKAGES):
            raise ConfigError(
                f"{path} cannot be bound into a container: it would cover the image's packages in {PACKAGES}; "
                "submit from another directory, and put the files that a recipe names into others"
            )
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(dict.fromkeys([*map(str, kept), *more]))


VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def variables_in(text: str) -> list[str]:
    """The names of the variables in a text such as `/local/$SLURM_JOB_ID`."""
    return [plain or braced for plain, braced in VARIABLE.findall(text)]


def expand_on_node(text: str) -> str:
    """The text as a word of bash: its variables are those of the node, everything else is literal."""
    literals = VARIABLE.sub("\0", text).split("\0")
    words = [quote(literal) if literal else "" for literal in literals]
    return words[0] + "".join(f'"${{{name}}}"{word}' for name, word in zip(variables_in(text), words[1:], strict=True))


def argv(script: Path, command: Sequence[str]) -> list[str]:
    """The command in the container, as words."""
    return ["bash", str(script), *command]
