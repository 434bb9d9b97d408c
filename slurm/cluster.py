"""Cluster profiles: everything about a site that recipes must not know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from neobert.config import ConfigError, Strict, nearest, read_yaml, validate
from slurm.recipe import bundled
from slurm.schema import Bind, Environment, GpuRequest, NonNegative, Positive, Seconds, Variable, Word
from slurm.values import Scope, render


def _directive(value: str) -> str:
    if not value.startswith("--") or not value.isprintable():
        raise ValueError(f"expected one option of sbatch, such as --mail-type=FAIL, found {value!r}")
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
    scratch: str | None = Field(
        None, min_length=1, description="node-local directory; may hold $VARIABLES of the job; by default its TMPDIR"
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
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "recipe" / "clusters"


def load_profile(name: str) -> Profile:
    """The profile of that name (the user's own before the ones that come with the program), or at that path."""
    folders = [user_profiles(), bundled("clusters")]
    if "/" in name or name.endswith((".yaml", ".yml")):
        file = Path(name)
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
        data: Any = render(source.data, {"env": Scope("env", dict(os.environ), {})})
        if not isinstance(data, dict):
            raise ConfigError("a cluster profile is a mapping of settings")
        return validate(Profile, data)
    except ConfigError as error:
        raise error.located(source.where) from None
