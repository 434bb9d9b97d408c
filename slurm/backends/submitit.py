"""Slurm through submitit: the same job script, started by a callable that submitit keeps and starts again.

submitit's Python process takes the place of the batch script. It runs on the host, not in the container, and starts the
script there, so that `scontrol` is at hand when a trial was interrupted and goes on later.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neobert.config import ConfigError, private
from neobert.config.extras import install
from slurm.backends.sbatch import SbatchBackend, for_submission
from slurm.failure import find_cause
from slurm.render import Chunk, Job, directives
from slurm.rundir import RunDir, read_json, read_jsonl, read_tail
from slurm.submissions import Given

AGAIN = 85  # the script's exit status for: checkpointed, to be requeued
TAKEN = 75  # and for: Slurm is taking the job away, and decides itself whether it comes back


class TrialFailed(Exception):
    """A trial ended without a result; the message tells why, and where its log is."""


class RunTrial:
    """What each of submitit's jobs does: runs the job script for its trial and returns the trial's result."""

    def __init__(self, script: Path, run: Path):
        self.script, self.run = script, run

    def __call__(self, trial: str) -> dict[str, Any]:
        status = subprocess.call(["/bin/bash", str(self.script)])
        if status == AGAIN:
            # submitit's own way to checkpoint and requeue: it counts the times, and ends this process.
            os.kill(os.getpid(), getattr(signal, f"SIG{_package().JobEnvironment().USR_SIG}"))
        while status in (AGAIN, TAKEN):  # until Slurm ends this process: a return would tell that the trial is over
            signal.pause()
        files = RunDir(self.run).trial(trial)
        result = read_json(files.result)
        if result is not None:
            return result
        failure = read_json(files.failure)
        if failure is None:
            raise TrialFailed(f"trial {trial}: the job script ended with exit status {status} and without a result")
        log = files.log(failure["attempt"])
        raise TrialFailed(f"trial {trial}: {find_cause(failure, read_tail(log))} ({log})")

    def checkpoint(self, trial: str) -> Any:
        """Called by submitit before it requeues: nothing is to be remembered, the trial's directory holds it all."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, trial)


class SubmititBackend(SbatchBackend):
    """Submits through submitit; asks and cancels as `sbatch` does, since the jobs are Slurm's."""

    def check(self, jobs: Sequence[Job]) -> None:
        super().check(jobs)
        _package()
        for job in jobs:
            if job.stage.array.pack > 1:
                raise ConfigError.at(
                    ("array", "pack"),
                    f"stage {job.stage.name}: with submitit each job returns one trial's result; leave array.pack at 1",
                )

    def submit(self, script: Path, job: Job, chunk: Chunk, after: Sequence[str]) -> str:
        rows = read_jsonl(script.parent / "trials.jsonl")[chunk.offset : chunk.offset + chunk.tasks]
        ids = [row["id"] for row in rows]
        options = dict(line.removeprefix("--").partition("=")[::2] for line in directives(job, chunk))
        seconds = job.stage.resources.time
        for ours in ("array", "output", "open-mode", "job-name"):  # submitit sets these itself
            options.pop(ours, None)
        if after:
            options["dependency"] = f"afterany:{':'.join(after)}"
        _check_private(_folder(script.parent), job.run)
        submitit = _package()
        executor = submitit.SlurmExecutor(folder=_folder(script.parent), max_num_timeout=job.profile.max_requeues)
        executor.update_parameters(
            job_name=job.name,
            time=-(-seconds // 60),
            array_parallelism=chunk.parallel or chunk.tasks,
            use_srun=False,  # the script starts the processes; this one is in the place of the batch script
            stderr_to_stdout=True,
            signal_delay_s=1,  # where there is no --signal among the options, the job is too short for one
            additional_parameters={key: value or True for key, value in options.items()},
        )
        try:
            with _environment(for_submission(os.environ, job)):
                jobs = executor.map_array(RunTrial(script, job.run), ids)
        except submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"sbatch refused the job: {str(error).strip()}") from None
        except submitit.core.utils.FailedSubmissionError as error:  # its job will find no pickle, and fail
            first_line = str(error).splitlines()[0]
            raise ConfigError(f"{first_line}. If that job is queued it will fail; then run `recipe retry`") from None
        return str(jobs[0].job_id).partition("_")[0]


def _check_private(folder: Path, run: Path) -> None:
    """Raises `ConfigError` where others could put their own pickle in the place of submitit's: it is code."""
    folder.mkdir(exist_ok=True)
    for path in (folder, *folder.parents[: len(folder.relative_to(run).parts)]):
        if why := private.why_not_private(path):
            raise ConfigError(
                f"{path} {why}, and submitit would run what lies there: take the backend sbatch, or a new run (--new), "
                "to which only you can write"
            )


@contextmanager
def _environment(environ: Mapping[str, str]) -> Iterator[None]:
    """submitit calls sbatch with the variables of this process."""
    before = dict(os.environ)
    hidden = [name for name in before if name not in environ]
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: before[name] for name in hidden})


def job_of(run: RunDir, given: Given) -> Any:
    """The `submitit.Job` of a trial."""
    folder = _folder(run.job(given.job.stage, given.job.directory))
    return _package().SlurmJob(folder=folder, job_id=given.task, tasks=[0])


def _folder(directory: Path) -> Path:
    """Where submitit keeps its pickles and logs, beside the script."""
    return directory / "submitit"


def _package() -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise ConfigError(f"the backend submitit needs its package: {install('submitit')}") from None
    return submitit
