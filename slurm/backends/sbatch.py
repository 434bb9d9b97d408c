"""Slurm through its own commands: sbatch, squeue, sacct, scancel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from neobert.config import ConfigError
from slurm.backends import REST, QueuedTask, TaskKey, TaskState
from slurm.render import Chunk, Job

KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
OPTIONS = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_")
"""How variables begin that Slurm's commands read options from."""
DEFAULTS = {"SBATCH_ACCOUNT": "account", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos"}
"""Those that many sites set for their users, which hold where the cluster profile says nothing."""
NO_VAL = 0xFFFFFFFE  # <slurm/slurm.h>: no index, where a whole array is told of
TIMEOUT = 120  # seconds; a controller under load can take most of a minute
ANSWER_LOST = ("timed out", "Zero Bytes were transmitted or received", "Unexpected message received")
"""Errors of sbatch when the connection broke after it had sent the job."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""Colours and the like for a terminal."""
AT_ONCE = 2000  # job ids in one question: a command's argument may have 128 KiB
ACCOUNT = re.compile(r"(?P<job>\d+)_?(?P<index>[^|]*)\|(?P<state>[^| ]+)[^|]*\|(?P<code>[^|]*)\|(?P<limit>[^|]*)")
"""A line of sacct: `30_2|CANCELLED by 0|0:15|00:10:00`; `30_[2-9%2]` are those that never left the queue one by one."""
SEPARATOR = "\x1f"
FIELDS = ("ArrayJobID", "ArrayTaskID", "State", "Comment", "Reason", "StartTime", "StdOut", "UserName")
FORMAT = ",".join(f"{field}:{SEPARATOR}" for field in FIELDS)


class SbatchBackend:
    def __init__(self, run: Path):
        self._run = run

    def check(self, jobs: Sequence[Job]) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "there is no sbatch on PATH: submit from a login node of the cluster, "
                "or run on this machine with --cluster local"
            )

    def submit(self, script: Path, job: Job, chunk: Chunk, after: Sequence[str]) -> str:
        dependency = [f"--dependency=afterany:{':'.join(after)}"] if after else []
        try:
            answer = _run(["sbatch", "--parsable", *dependency, str(script)], for_submission(os.environ, job))
        except subprocess.TimeoutExpired:
            raise ConfigError(_no_answer(f"none within {TIMEOUT} s")) from None
        if answer.returncode and any(text in answer.stderr for text in ANSWER_LOST):
            raise ConfigError(_no_answer(answer.stderr.strip()))
        if answer.returncode:
            raise ConfigError(f"sbatch refused the job: {answer.stderr.strip() or f'exit status {answer.returncode}'}")
        job_id = find_job_id(answer.stdout)
        if job_id is None:
            raise ConfigError(_unreadable(answer.stdout))
        return job_id

    def queue(self, jobs: Collection[str], names: Collection[str]) -> list[QueuedTask]:
        ids = sorted(jobs)
        filters = [f"--jobs={','.join(ids[at : at + AT_ONCE])}" for at in range(0, len(ids), AT_ONCE)]
        filters += [f"--name={','.join(sorted(names))}"] if names else []
        tasks = {task.name: task for chosen in filters for task in _squeue(chosen)}
        return list(tasks.values())

    def history(self, job_ids: Iterable[str]) -> dict[TaskKey, TaskState]:
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode,Timelimit"]
        try:
            answer = _run([*command, f"--jobs={','.join(job_ids)}"])
        except (subprocess.TimeoutExpired, FileNotFoundError, PermissionError):
            return {}
        if answer.returncode:  # many sites, and small clusters, keep no accounts; or their daemon is down
            return self._remembered(job_ids)
        states = {}
        for match in map(ACCOUNT.fullmatch, answer.stdout.splitlines()):
            if match is not None:  # else a notice of the site
                states[match["job"], _index(match["index"])] = TaskState(
                    match["state"], _ending(match["code"]), match["limit"]
                )
        return states

    def _remembered(self, job_ids: Iterable[str]) -> dict[TaskKey, TaskState]:
        """What the controller itself still knows of jobs that ended a short while ago (MinJobAge)."""
        states = {}
        for job in job_ids:
            try:
                answer = _run(["scontrol", "show", "job", "--oneliner", job])
            except (subprocess.TimeoutExpired, FileNotFoundError, PermissionError):
                return {}
            for line in answer.stdout.splitlines():
                fields = parse_job(line)
                if "JobState" in fields:
                    ending, limit = _ending(fields.get("ExitCode", "")), fields.get("TimeLimit", "")
                    states[job, _index(fields.get("ArrayTaskId", ""))] = TaskState(fields["JobState"], ending, limit)
        return states

    def cancel(self, names: Sequence[str]) -> None:
        try:
            answer = _run(["scancel", *names])
        except (subprocess.TimeoutExpired, FileNotFoundError, PermissionError):
            raise ConfigError("scancel gave no answer: nothing is known to be cancelled") from None
        if answer.returncode:
            first, *more = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
            raise ConfigError(f"scancel failed: {first}{f' (and {len(more)} more)' if more else ''}")


def _squeue(chosen: str) -> Iterator[QueuedTask]:
    """The tasks that a filter of squeue chooses, whoever's they are."""
    try:
        answer = _run(["squeue", "--all", "--noheader", "--array", chosen, f"--Format={FORMAT}"])
    except (subprocess.TimeoutExpired, FileNotFoundError, PermissionError):
        raise ConfigError("squeue gave no answer: what Slurm has queued is not known now") from None
    if answer.returncode and "Invalid job id" in answer.stderr:
        return  # Slurm has forgotten the job; only a question about a single one ends like this
    if answer.returncode:
        raise ConfigError(f"squeue failed: {answer.stderr.strip()}")
    for line in answer.stdout.splitlines():
        yield _task(line)


def _task(line: str) -> QueuedTask:
    parts = line.split(SEPARATOR)
    if len(parts) != len(FIELDS) + 1:
        raise ConfigError(f"squeue printed a line that cannot be read: {line!r}")
    job, index, state, comment, reason, start, output, user, _ = map(str.strip, parts)
    reasons = [reason if reason != "None" else ""]
    if state == "PENDING" and start not in ("N/A", ""):
        reasons.append(f"expected to start {start.replace('T', ' ')}")
    array = index.isdigit()
    return QueuedTask(
        name=f"{job}_{index}" if array else job,
        index=int(index) if array else 0,
        state=TaskState(state, ", ".join(filter(None, reasons))),
        comment=comment,
        output=output,
        user=user,
    )


def parse_job(line: str) -> dict[str, str]:
    """The fields of `scontrol show job --oneliner`; of each name the first: SubmitLine, last, is a user's text."""
    words = [word.partition("=")[::2] for word in line.split()]
    return dict(reversed(words))


def _index(text: str) -> int:
    """The index of an array task; 0 for a job that is none, and `REST` for a group of them."""
    return int(text or 0) if not text or (text.isdigit() and int(text) < NO_VAL) else REST


def _ending(code: str) -> str:
    """Slurm's `EXIT:SIGNAL` in words; empty for the zeros of a job that was not ended by itself."""
    status, _, number = code.partition(":")
    if number.isdigit() and int(number) in signal.valid_signals():
        return f"signal {number}"
    return f"exit code {status}" if status.isdigit() and int(status) else ""


def find_job_id(answer: str) -> str | None:
    """The number in what `sbatch --parsable` printed: `ID` or `ID;CLUSTER`, on the only such line among notices."""
    lines = (ESCAPES.sub("", line).strip() for line in answer.splitlines())
    numbers = {match[1] for line in lines if (match := re.fullmatch(r"(\d+)(;\S+)?", line))}
    return numbers.pop() if len(numbers) == 1 else None


def _no_answer(detail: str) -> str:
    return f"sbatch got no answer from Slurm ({detail}). {_MAY_BE_QUEUED}"


def _unreadable(answer: str) -> str:
    printed = repr(answer.strip()[-500:]) if answer.strip() else "nothing"
    return f"sbatch printed {printed} instead of a line with the job's number. {_MAY_BE_QUEUED}"


_MAY_BE_QUEUED = (
    "The job may be queued all the same: run the same `recipe submit` again later, it adopts what is queued"
)


def without_options(environ: Mapping[str, str], kept: Collection[str] = KEPT) -> dict[str, str]:
    """The environment without what would change the meaning of a command or of a job.

    SBATCH_JOB_NAME goes before the name in a script, and the job would never be found again; SQUEUE_STATES hides jobs
    that wait, and they would be submitted a second time. Inside a job, that job's SLURM_* would go on into the new one
    and speak there of the wrong tasks and memory.
    """
    return {key: value for key, value in environ.items() if not key.startswith(OPTIONS) or key in kept}


def for_submission(environ: Mapping[str, str], job: Job) -> dict[str, str]:
    """The environment in which sbatch is called, and which goes into the job."""
    defaults = [name for name, key in DEFAULTS.items() if getattr(job.profile, key) is None]
    return without_options(environ, (*KEPT, *defaults))


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
        env=without_options(os.environ) if environment is None else environment,
    )
