"""Cluster profiles: everything about a site that recipes must not know."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from neobert.config import ConfigError, Strict, nearest, read_yaml, validate
from slurm.recipe import bundled
from slurm.schema import Environment, GpuRequest, NonNegative, Positive, Seconds, Word
from slurm.values import Scope, render


def _directive(value: str) -> str:
    if not value.startswith("--") or not value.isprintable():
        raise ValueError(f"expected one option of sbatch, such as --mail-type=FAIL, found {value!r}")
    return value


class Container(Strict):
    runtime: Literal["apptainer", "none"] = "none"
    flags: list[str] = Field([], description="more options of `apptainer exec`, one word each")
    binds: list[str] = Field([], description="host directories, or SRC:DEST[:ro]")


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
    backend: Literal["sbatch", "local"]
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
    container: Container = Container()
    image_dir: str | None = Field(None, min_length=1, description="where images named without a path lie")
    python: str | None = Field(None, min_length=1, description="of jobs without a container; by default this one")
    scratch: str | None = Field(None, min_length=1, description="paths below it are not checked at submission")
    signal_seconds: Positive = Field(120, description="warning before the time limit, to save a checkpoint")
    max_requeues: NonNegative = Field(20, description="times that a job which was interrupted goes on")
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
