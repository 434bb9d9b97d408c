"""What a recipe may say: the typed form of its YAML."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from neobert.config import TASKS, Strict, nearest
from slurm.secrets import is_secret

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]


OF_PROCESS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS",
    "RECIPE_TRIAL", "RECIPE_ATTEMPT", "RECIPE_LEASE_WAIT", "RECIPE_NODES", "RECIPE_GPUS_PER_NODE",
)  # fmt: skip
"""Environment variables that tell a process which one of a trial's processes it is, and of which attempt."""

OURS = (
    *OF_PROCESS, "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE",
    "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "RECIPE_JOB_ID", "RECIPE_VERB",
)  # fmt: skip
"""Environment variables that job scripts set or live by."""


def check_name(value: str) -> str:
    """Names become parts of paths, of job names and of `#SBATCH` lines, so they hold no character with a meaning."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(f"{value!r} is no name: letters, digits, '.', '_' and '-', the first a letter or a digit")
    return value


def _word(value: str) -> str:
    """A value of a `#SBATCH` line, which Slurm splits at blanks and cuts at `#`."""
    if not re.fullmatch(r"[^\s'\"\\#;$`]+", value):
        raise ValueError(f"{value!r} cannot stand in a #SBATCH line: no blanks, quotes, backslashes, '#', ';', '$'")
    return value


def _time(value: Any) -> Any:
    """Minutes as a number, or Slurm's `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`, `MM:SS`, as seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value * 60
    else:
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value) if isinstance(value, str) else None
        if not match:
            raise ValueError(f"expected a time such as 01:30:00, 2-12:00:00 or minutes, found {value!r}")
        days, *rest = match.groups()
        parts = [int(part) for part in rest if part is not None]
        if days is not None:  # D-HH[:MM[:SS]]
            hours, minutes, secs = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, secs = parts
        else:  # MM[:SS]
            hours, minutes, secs = 0, *(*parts, 0)[:2]
        seconds = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + secs
    if seconds <= 0:
        raise ValueError(f"expected a time above zero, found {value!r}")
    return seconds


def slurm_time(seconds: int) -> str:
    """Seconds as Slurm's `[D-]HH:MM:SS`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{seconds:02}"
    return f"{days}-{clock}" if days else clock


def _memory(value: Any) -> Any:
    if value == 0 and not isinstance(value, bool):
        return "0"
    if not isinstance(value, str) or not re.fullmatch(r"\d+[KMGT]?", value):
        raise ValueError(f"expected memory such as 16G or 500M (0: all of the node), found {value!r}")
    return value


def _task(value: str) -> str:
    if value not in TASKS:
        raise ValueError(f"there is no task '{value}'{nearest(value, TASKS)}")
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        _variable(key)
        if is_secret(key):
            raise ValueError(
                f"{key} looks like a secret, and `env` is written into job scripts. List it under `secrets: [{key}]`; "
                "jobs then get its value from the environment that submits"
            )
        if "\0" in text:
            raise ValueError(f"{key}: an environment variable cannot hold a NUL character")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is no name of an environment variable")
    if value in OURS:
        raise ValueError(f"{value} is set by the job script itself")
    for prefix in ("APPTAINERENV_", "SINGULARITYENV_"):
        if value.startswith(prefix):
            raise ValueError(f"{value} reaches the container by its plain name: {value.removeprefix(prefix)}")
    return value


def _bind(value: str) -> str:
    if not re.fullmatch(r"/[^:,\\]*(:/[^:,\\]*(:(ro|rw))?)?", value) or not value.isprintable():
        raise ValueError(f"expected an absolute directory, or SRC:DEST[:ro], found {value!r}")
    return value


Name = Annotated[str, AfterValidator(check_name)]
Variable = Annotated[str, AfterValidator(_variable)]
Bind = Annotated[str, AfterValidator(_bind)]
TaskName = Annotated[str, AfterValidator(_task)]
Word = Annotated[str, AfterValidator(_word)]
Seconds = Annotated[int, BeforeValidator(_time), PlainSerializer(slurm_time, when_used="json")]
Memory = Annotated[str, BeforeValidator(_memory)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]


class Resources(Strict):
    """What one trial gets."""

    nodes: Positive = 1
    gpus_per_node: NonNegative = 0
    cpus: Positive = Field(1, description="per node")
    mem: Memory = Field("4G", description="per node")
    time: Seconds = Field(3600, description="a trial's time limit")
    procs_per_node: Positive = Field(None, description="processes per node; by default one per GPU, or one")  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _one_process_per_gpu(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("procs_per_node") is None:
            gpus = data.get("gpus_per_node", 0)
            return {**data, "procs_per_node": gpus if isinstance(gpus, int) and gpus > 0 else 1}
        return data

    @model_validator(mode="after")
    def _a_core_each(self) -> Resources:
        if self.cpus < self.procs_per_node:
            raise ValueError(f"cpus: {self.cpus} is fewer than the {self.procs_per_node} processes on each node")
        return self

    @property
    def world_size(self) -> int:
        return self.nodes * self.procs_per_node


class Array(Strict):
    """How a stage's trials share a job array."""

    parallel: Positive | None = Field(None, description="array tasks that may run at once")
    pack: Positive = Field(1, description="trials in one array task, one after the other")


def _grid(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | list):
        raise ValueError(f"expected a mapping of axes or a list of points, found {value!r}")
    return value


Grid = Annotated[Any, AfterValidator(_grid)]


class StageSpec(Strict):
    """One kind of job."""

    task: TaskName
    needs: list[Name] = []
    image: str | None = Field(None, min_length=1)
    resources: Resources = Resources()
    array: Array = Array()
    env: Environment = {}
    secrets: list[Variable] = Field([], description="environment variables that no file or log may show")
    binds: list[Bind] = Field([], description="more directories for the container")
    config: dict[str, Any] = {}
    grid: Grid = None


class RecipeSpec(Strict):
    """A whole recipe: one stage, or several under `stages` that share `image`, `resources`, `array` and `env`."""

    name: Name
    description: str = ""
    vars: dict[str, Any] = {}
    stages: dict[Name, StageSpec] = Field(min_length=1)


SHARED = ("image", "resources", "array", "env", "secrets", "binds")
"""Keys of a recipe that are defaults for all of its stages."""
OWN = ("task", "needs", "config", "grid")
"""Keys that belong to one stage; at the top of a recipe they describe its only stage."""
TOP = (*SHARED, *OWN, "name", "description", "vars", "stages", "extends", "unset")

GpuRequest = Literal["gpus-per-node", "gres", "none"]
