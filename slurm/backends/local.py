"""This machine as a cluster of one node: each job is a small supervisor process, detached from the terminal."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from neobert.config import ConfigError
from slurm.backends import QueuedTask, TaskKey, TaskState
from slurm.backends.slots import machine_gpus, slots_directory
from slurm.locks import is_locked, machine_id
from slurm.render import Chunk, Job
from slurm.rundir import RunDir, read_json, read_log, write_atomically

START_SECONDS = 20
ACTIVE = ("PENDING", "RUNNING")


class LocalBackend:
    """Jobs live in the run's `queue/local-N/`: `job.json` (what to do), `events.jsonl` (what happened), a lock."""

    def __init__(self, run: Path):
        self._queue = RunDir(run).queue

    def check(self, jobs: Sequence[Job]) -> None:
        slots_directory()
        for job in jobs:
            asked = job.stage.resources
            if asked.nodes > 1:
                raise ConfigError(
                    f"stage {job.stage.name} asks for {asked.nodes} nodes; the local backend has this machine alone"
                )
            gpus = len(machine_gpus()) if asked.gpus_per_node else 0
            if asked.gpus_per_node > gpus:
                raise ConfigError(
                    f"stage {job.stage.name} asks for {asked.gpus_per_node} GPUs and this machine has {gpus}; "
                    "to run on what is here: --set resources.gpus_per_node=0"
                )

    def submit(self, script: Path, job: Job, chunk: Chunk, after: Sequence[str]) -> str:
        directory = self._new_job()
        resources = job.stage.resources
        description = {
            "name": job.name,
            "comment": job.comment(chunk),
            "script": str(script),
            "tasks": chunk.tasks,
            "parallel": chunk.parallel,
            "cpus": resources.cpus,
            "gpus": resources.gpus_per_node,
            "after": list(after),
            "max_requeues": job.profile.max_requeues,
            "grace_seconds": job.profile.signal_seconds,
            "host": socket.gethostname(),
            "machine": machine_id(),
        }
        write_atomically(directory / "job.json", json.dumps(description, indent=1) + "\n")
        with (directory / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-m", "slurm.backends.supervisor", str(directory)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not (directory / "events.jsonl").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                text = (directory / "supervisor.log").read_text(errors="replace").strip()
                raise ConfigError(f"the local queue did not start (see {directory}/supervisor.log): {text[-500:]}")
            time.sleep(0.02)
        process.returncode = 0  # it lives on without us: no warning about a child that still runs
        return directory.name

    def _new_job(self) -> Path:
        self._queue.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            try:
                (self._queue / f"local-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return self._queue / f"local-{number}"

    def queue(self, jobs: Collection[str], names: Collection[str]) -> list[QueuedTask]:
        found = []
        for directory in sorted(self._queue.glob("local-*")):
            job = read_json(directory / "job.json")
            if job is None or not (directory.name in jobs or job["name"] in names) or not alive(directory):
                continue
            states = _states(directory)
            for task in range(job["tasks"]):
                state = states.get(task, TaskState("PENDING", _waiting(directory, job)))
                if state.state in ACTIVE:
                    found.append(
                        QueuedTask(f"{directory.name}_{task}", task, state, job["comment"], output=job["script"])
                    )
        return found

    def history(self, job_ids: Iterable[str]) -> dict[TaskKey, TaskState]:
        return {
            (job, task): state
            for job in job_ids
            for task, state in _states(self._queue / job).items()
            if state.state not in ACTIVE
        }

    def cancel(self, names: Sequence[str]) -> None:
        for name in names:
            job, _, task = name.partition("_")
            directory = self._queue / job
            if _elsewhere(directory):
                host = read_json(directory / "job.json")["host"]  # type: ignore[index]
                raise ConfigError(f"{job} runs on another machine, {host}: cancel it there")
            (directory / (f"cancel-{task}" if task else "cancel")).touch()


def alive(directory: Path) -> bool:
    """Whether a job's supervisor lives; it holds a lock for all of its life, so a reused pid deceives nobody."""
    if _elsewhere(directory):
        return not any(event.get("state") == "END" for event in read_log(directory / "events.jsonl"))
    return is_locked(directory / "lock")


def _elsewhere(directory: Path) -> bool:
    job = read_json(directory / "job.json")
    return job is not None and job["machine"] != machine_id()


def _states(directory: Path) -> dict[int, TaskState]:
    states = {}
    for event in read_log(directory / "events.jsonl"):
        if "task" in event:
            states[event["task"]] = TaskState(event["state"], event.get("reason", ""))
    return states


def _waiting(directory: Path, job: dict) -> str:
    blocked = [name for name in job["after"] if alive(directory.parent / name)]
    return f"Dependency: {', '.join(blocked)}" if blocked else "Resources"


def environment(job_id: str, task: int, gpus: Sequence[str]) -> dict[str, str]:
    """What the local queue adds to the environment of a task's script; a trial sees no GPU that it did not get."""
    return {"RECIPE_JOB_ID": job_id, "SLURM_ARRAY_TASK_ID": str(task), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
