"""Cluster profiles: everything about a site that recipes must not know."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from neobert.config import ConfigError, Strict, nearest, read_yaml, validate
from neobert.config.paths import at_home
from slurm.recipe import bundled
from slurm.schema import Bind, Environment, GpuRequest, NonNegative, Positive, Seconds, Variable, Word
from slurm.user import config_directory
from slurm.values import EnvironmentScope, bounded, render

FIXED = {
    "nodes": "set `resources.nodes` of the recipe",
    "cpus-per-task": "set `resources.cpus` of the recipe",
    "mem": "set `resources.mem` of the recipe",
    "time": "set `resources.time` of the recipe",
    **dict.fromkeys(
        ("ntasks", "ntasks-per-node", "ntasks-per-socket", "ntasks-per-core", "ntasks-per-gpu"),
        "set `resources.procs_per_node` of the recipe",
    ),
    "array": "set `grid` and `array` of the recipe",
    "dependency": "set `needs` of the recipe's stages",
    "signal": "set `signal_seconds` of the profile",
    "export": "set `env` of the profile or the recipe",
    "export-file": "set `env` of the profile or the recipe",
    **dict.fromkeys(("requeue", "no-requeue"), "set `max_requeues` of the profile"),
    **dict.fromkeys(("output", "error", "chdir"), "choose the directory of all runs by `--runs`"),
    **dict.fromkeys(
        ("job-name", "comment", "open-mode", "parsable", "wrap", "wait", "test-only", "kill-on-invalid-dep"),
        "leave it out",
    ),
}
"""Options of sbatch that scripts and their tracking depend on, and what to do instead of giving them."""


def _directive(value: str) -> str:
    if not value.startswith("--") or not value.isprintable():
        raise ValueError(f"expected one option of sbatch, such as --mail-type=FAIL, found {value!r}")
    name = re.split(r"[=\s]", value.removeprefix("--"), maxsplit=1)[0]
    for option, instead in FIXED.items():
        if name and option.startswith(name):  # sbatch takes the beginning of a name for the whole
            raise ValueError(f"{value!r}: jobs are submitted with a --{option} of their own; {instead}")
    return value


def _scratch(value: str) -> str:
    if not value.startswith(("/", "$")):
        raise ValueError(f"expected an absolute directory, or one that begins with a $VARIABLE of the job: {value!r}")
    return value


def _pattern(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", value):
        raise ValueError(f"expected the name of an environment variable, or the beginning of some as NCCL_*: {value!r}")
    return value


class Container(Strict):
    """How images are run. `runtime` is Apptainer or SingularityCE under whatever name: its version tells which."""

    runtime: str = Field("none", min_length=1, description="the program, as apptainer; none: jobs run on the host")
    flags: list[str] = Field([], description="more options of `apptainer exec`, one word each")
    binds: list[Bind] = Field([], description="host directories, or SRC:DEST[:ro]")
    env: list[Annotated[str, AfterValidator(_pattern)]] = Field([], description="more variables that pass, as FOO_*")
    gpu: Literal["nv", "rocm", "none"] = Field("nv", description="the option for jobs that ask for GPUs")
    copy_image: bool = Field(False, description="copy the image to each node's scratch once, and run it from there")


class Limits(Strict):
    """What the site allows; a recipe that asks for more is refused before submission."""

    max_array_size: Positive = Field(1001, description="Slurm's MaxArraySize, which caps the index of an array task")
    max_nodes: Positive | None = None
    max_gpus_per_node: NonNegative | None = None
    max_cpus: Positive | None = Field(None, description="per node")
    max_time: Seconds | None = None


class Profile(Strict):
    """A site."""

    description: str = ""
    backend: Literal["sbatch", "submitit", "local"]
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    gpus: GpuRequest = Field("gpus-per-node", description="how GPUs are asked for")
    gpu_type: Word | None = Field(None, description="such as a100, added to the request")
    sbatch: list[Annotated[str, AfterValidator(_directive)]] = Field([], description="more #SBATCH lines")
    srun: list[str] = Field([], description="more options of srun, one word each")
    modules: list[Word] = Field([], description="for `module load`")
    env: Environment = {}
    secrets: list[Variable] = Field([], description="environment variables that no file or log may show")
    container: Container = Container()
    image_dir: str | None = Field(None, min_length=1, description="where images named without a path lie")
    python: str | None = Field(None, min_length=1, description="of jobs without a container; by default this one")
    scratch: Annotated[str, AfterValidator(_scratch)] | None = Field(
        None, description="node-local directory; may hold $VARIABLES of the job; by default its TMPDIR"
    )
    runs_mode: Literal["private", "group"] | None = Field(
        None, description="who can read and write runs: you alone, or your group as well; by default as the umask says"
    )
    signal_seconds: Positive = Field(120, description="warning before the time limit, to save a checkpoint")
    max_requeues: NonNegative = Field(20, description="times that a job which was interrupted goes on")
    bad_nodes: Literal["fail", "exclude"] = Field(
        "fail", description="a job that finds a node unfit fails, or starts again without that node"
    )
    preflight_seconds: int = Field(45, ge=5, le=60, description="within which all processes of a job must have met")
    limits: Limits = Limits()


def user_profiles() -> Path:
    """The directory of the user's own profiles."""
    return config_directory() / "clusters"


def load_profile(name: str) -> Profile:
    """The profile of that name (the user's own before the ones that come with the program), or at that path."""
    folders = [bundled("clusters")]
    with suppress(ConfigError):  # a user without a home has no profiles there
        folders.insert(0, user_profiles())
    if "/" in name or name.endswith((".yaml", ".yml", ".json")):
        file = at_home(name)
    else:
        found = [folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()]
        if not found:
            known = {path.stem for folder in folders for path in folder.glob("*.yaml")}
            raise ConfigError(
                f"there is no cluster profile '{name}' in {folders[0]}, nor among those that come along"
                f"{nearest(name, known)}"
            )
        file = found[0]
    source = read_yaml(file)
    try:
        with bounded():
            data: Any = render(source.data, {"env": EnvironmentScope(os.environ)})
        if not isinstance(data, dict):
            raise ConfigError("a cluster profile is a mapping of settings")
        return validate(Profile, data)
    except ConfigError as error:
        raise error.located(source.where) from None
