"""A stage of a plan -> the text of its job scripts. Pure: the same values give the same text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neobert.config import ConfigError
from slurm.cluster import Profile
from slurm.container import Entry, argv, bind_words, enter_script
from slurm.plan import Stage, image_path, paths_of
from slurm.rundir import UMASKS
from slurm.schema import slurm_time
from slurm.shell import template

OF_THE_JOB = (
    "SLURM_JOB_*|SLURM_JOBID|SLURM_NODELIST|SLURM_NNODES|SLURM_TASKS_PER_NODE|SLURM_SUBMIT_*|SLURM_TOPOLOGY_*",
    "SLURM_NODEID|SLURM_PROCID|SLURM_LOCALID|SLURM_GTIDS|SLURM_TASK_PID|SLURM_NODE_ALIASES|SLURM_*_ON_NODE",
    "SLURM_CLUSTER_NAME|SLURM_WORKING_CLUSTER|SLURM_CONF|SLURM_CONF_*|SLURM_JWT|SLURM_SACK_*|SLURM_SPANK_*",
)
"""Patterns of bash: variables that tell about a job and how to reach its Slurm. All others are options of srun."""

OTHER_VARIABLES = {
    "cpu-freq": ("SLURM_CPU_FREQ_REQ",), "mem-bind": ("SLURM_MEM_BIND_*",), "distribution": ("SLURM_DIST_PLANESIZE",),
}  # fmt: skip
"""Those of options of sbatch whose variables have other names than the option."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a stage's array tasks that fits under MaxArraySize."""

    number: int
    offset: int
    tasks: int
    parallel: int | None


@dataclass(frozen=True)
class Job:
    """What the scripts of one stage need: where they run, what, and for how many trials."""

    recipe: str
    stage: Stage
    profile: Profile
    backend: str
    trials: int
    run: Path
    directory: Path  # of script and manifest
    needs: Path | None  # the list of the trials that must have their results before; None: its stage needs none
    code: Path | None  # what was submitted; None: what the image holds
    workdir: Path
    python: str
    seals: Mapping[Path, str] = field(default_factory=dict)  # SHA-256 of the files that the script runs and reads

    @property
    def is_array(self) -> bool:
        return self.trials > self.stage.array.pack

    @property
    def image(self) -> Path | None:
        return image_path(self.stage, self.profile)

    @property
    def manifest(self) -> Path:
        """The settings of its trials, one a line."""
        return self.directory / "trials.jsonl"

    @property
    def entry(self) -> Path:
        """The script through which its processes enter the container."""
        return self.directory / "enter.sh"

    @property
    def name(self) -> str:
        """The job's name in the queue."""
        return f"{self.recipe}.{self.stage.name}"

    def comment(self, chunk: Chunk) -> str:
        """Names the job for good: a repeated submission finds what is queued already by it."""
        return f"recipe:{self.run.name}/{self.stage.name}/{self.directory.name}/{chunk.number}"


def chunks(job: Job) -> list[Chunk]:
    """The job's array tasks, cut where Slurm's MaxArraySize asks for it; the parallel limit is shared out."""
    tasks = -(-job.trials // job.stage.array.pack)
    size = job.profile.limits.max_array_size if job.backend != "local" else max(tasks, 1)
    count = -(-tasks // size)
    parallel = job.stage.array.parallel
    if parallel is not None and parallel < count:
        raise ConfigError.at(
            ("array", "parallel"),
            f"{parallel} is fewer than the {count} arrays that {tasks} array tasks need here (MaxArraySize {size}), "
            "each of which runs one at least; raise it, or use array.pack",
        )
    return [
        Chunk(
            number=n,
            offset=n * size,
            tasks=min(size, tasks - n * size),
            parallel=None if parallel is None else parallel // count + (n < parallel % count),
        )
        for n in range(count)
    ]


def render(job: Job, chunk: Chunk) -> str:
    """The job script of one chunk."""
    stage, resources = job.stage, job.stage.resources
    slurm = job.backend != "local"
    return template("job.sh.j2").render(
        directives=list(directives(job, chunk)) if slurm else [],
        recipe=job.recipe,
        stage=stage,
        backend=job.backend,
        srun=slurm,
        nodes=resources.nodes,
        gpus=resources.gpus_per_node,
        trials=job.trials,
        pack=stage.array.pack,
        offset=chunk.offset,
        world=resources.world_size,
        local_procs=1 if slurm else resources.procs_per_node,
        threads=resources.cpus // resources.procs_per_node,
        run=str(job.run),
        manifest=str(job.manifest),
        umask=UMASKS[job.profile.runs_mode] if job.profile.runs_mode else None,
        seals={str(path): digest for path, digest in job.seals.items()},
        needs=None if job.needs is None else str(job.needs),
        workdir=str(job.workdir),
        code=None if job.code is None else str(job.code),
        modules=job.profile.modules,
        kept_variables=list(kept_variables(job)) if slurm else [],
        is_array=job.is_array or not slurm,
        command=command(job),
        max_requeues=job.profile.max_requeues,
        exclude_bad_nodes=job.profile.bad_nodes == "exclude",
        preflight_seconds=job.profile.preflight_seconds,
    )  # fmt: skip


def kept_variables(job: Job) -> Iterator[str]:
    """Patterns of the variables that the script leaves to srun: facts, and options of the profile's `sbatch`.

    The script repeats the job's own options on srun's command line, or srun takes them from the job.
    """
    yield from OF_THE_JOB
    if job.is_array:
        yield "SLURM_ARRAY_*"
    for option in job.profile.sbatch:
        name = re.match(r"--([a-z][a-z0-9-]*)", option)
        if name:
            yield f"SLURM_{name[1].upper().replace('-', '_')}"
            yield from OTHER_VARIABLES.get(name[1], ())


def command(job: Job) -> list[str]:
    """What the script runs for each trial, up to the arguments that tell which."""
    if job.image is None:
        words = [job.python, "-m", "neobert", "trial"]
    else:
        words = argv(job.entry, ["python3", "-m", "neobert", "trial"])
    words = words if job.backend == "local" else [*_srun(job), *words]
    env = job.stage.env
    # As arguments of env(1), and not as exports: no variable of a user's can then be one that bash or the script uses.
    return ["env", *(f"{key}={value}" for key, value in env.items()), *words] if env else words


def enter(job: Job) -> str | None:
    """The script through which all processes of a job enter its image; None for a job without one."""
    if job.image is None:
        return None
    resources = job.stage.resources
    named = [found for path in paths_of(job.stage) for found in path.found]
    folders = [(path if path.is_dir() else path.parent).absolute() for path in named]
    own = [job.run, job.workdir, *dict.fromkeys(folders)]
    return enter_script(
        Entry(
            title=f"Recipe {job.recipe}, stage {job.stage.name}",
            container=job.profile.container,
            image=job.image,
            workdir=job.workdir,
            binds=bind_words(own, job.stage.binds),
            code=job.code,
            names=tuple(job.stage.env),
            secrets=job.stage.secrets,
            scratch=job.profile.scratch,
            modules=tuple(job.profile.modules),
            gpus=resources.gpus_per_node,
            threads=resources.cpus // resources.procs_per_node,
        )
    )


def _srun(job: Job) -> Iterator[str]:
    resources = job.stage.resources
    yield "srun"
    yield f"--nodes={resources.nodes}"
    yield f"--ntasks={resources.world_size}"
    yield f"--ntasks-per-node={resources.procs_per_node}"
    # Said here again: srun inherits --cpus-per-task from sbatch in some versions of Slurm and not in others.
    yield f"--cpus-per-task={resources.cpus // resources.procs_per_node}"
    yield "--kill-on-bad-exit=1"
    yield from job.profile.srun


def directives(job: Job, chunk: Chunk) -> Iterator[str]:
    """What sbatch is told, as its own long options."""
    profile, resources, array = job.profile, job.stage.resources, job.stage.array
    yield f"--job-name={job.name}"
    yield f"--comment={job.comment(chunk)}"
    for key in ("partition", "account", "qos", "constraint"):
        value = getattr(profile, key)
        if value is not None:
            yield f"--{key}={value}"
    yield f"--nodes={resources.nodes}"
    yield f"--ntasks-per-node={resources.procs_per_node}"
    yield f"--cpus-per-task={resources.cpus // resources.procs_per_node}"
    yield f"--mem={resources.mem}"
    if resources.gpus_per_node and profile.gpus != "none":
        kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
        gres = "gpu:" if profile.gpus == "gres" else ""
        yield f"--{profile.gpus}={gres}{kind}{resources.gpus_per_node}"
    seconds = resources.time * min(array.pack, job.trials)
    yield f"--time={slurm_time(seconds)}"
    if seconds >= 5 * 60:  # Slurm may signal up to a minute early, so a shorter job would stop when it has just begun
        yield f"--signal=USR2@{min(profile.signal_seconds, seconds // 4)}"
    if job.is_array:
        yield f"--array=0-{chunk.tasks - 1}" + (f"%{chunk.parallel}" if chunk.parallel else "")
    name = "%A_%a" if job.is_array else "%j"
    yield f"--output={_output(job.directory / 'logs', name)}"
    yield "--open-mode=append"
    yield "--requeue"
    yield "--kill-on-invalid-dep=yes"
    yield from profile.sbatch


def _output(folder: Path, name: str) -> str:
    """The pattern of the output file, quoted as `#SBATCH` lines are; raises `ConfigError` where that cannot be done."""
    text = str(folder)
    bad = set(text) & set("%\\\"'\n\r#") | {c for c in text if not c.isprintable()}
    if bad:
        raise ConfigError(
            f"{text!r} cannot be the directory of a Slurm job's output: sbatch gives {min(bad)!r} a meaning of its "
            "own; choose another with --runs"
        )
    path = f"{text}/{name}.out"
    return f'"{path}"' if " " in text else path
