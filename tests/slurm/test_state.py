"""The state of a trial, from its files, the queue and the history; each case as the files and Slurm would have it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm import state as state_module
from slurm import submissions
from slurm.backends import QueuedTask, TaskKey, TaskState
from slurm.rundir import RunDir
from slurm.state import State, TrialState, Verdicts, run_state
from slurm.submissions import read_submissions

ID = "0123456789ab"
COMMENT = "recipe:one/glue/d/0"


class Slurm:
    """What the queue and its history would say, and how often they were asked."""

    def __init__(self) -> None:
        self.queued: TaskState | None = None
        self.told: TaskState | None = None
        self.silent = False
        self.job, self.index = "5", 0
        self.questions: list[str] = []

    def queue(self, jobs: Collection[str], names: Collection[str]) -> list[QueuedTask]:
        self.questions.append("queue")
        if self.silent:
            raise ConfigError("squeue gave no answer")
        return [QueuedTask(self.job, self.index, self.queued, COMMENT)] if self.queued else []

    def history(self, job_ids: Iterable[str]) -> dict[TaskKey, TaskState]:
        self.questions.append("history")
        return {("5", 0): self.told} if self.told else {}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    slurm = Slurm()
    for module in (state_module, submissions):
        monkeypatch.setattr(module, "get_backend", lambda *_: slurm)
    return slurm


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """One trial that was submitted as job 5."""
    run = RunDir(tmp_path / "one")
    (run.path / "stages/glue/d").mkdir(parents=True)
    run.manifest.write_text(json.dumps({"id": ID, "stage": "glue", "task": "glue", "point": {}}) + "\n")
    (run.path / "stages/glue/d/trials.jsonl").write_text(f'{{"id": "{ID}"}}\n')
    job = {
        "stage": "glue", "directory": "d", "chunk": 0, "offset": 0, "tasks": 1, "pack": 1, "array": False,
        "backend": "sbatch", "name": "s.glue", "comment": COMMENT, "id": "5", "time": 1.0,
    }  # fmt: skip
    run.submissions.write_text(json.dumps(job) + "\n")
    return run


def attempts(run: RunDir, *lines: dict[str, Any], failure: dict[str, Any] | None = None, log: str = "") -> None:
    trial = run.trial(ID)
    (trial.path / "logs").mkdir(parents=True, exist_ok=True)
    trial.attempts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trial.log(1).write_text(log)
    if failure is not None:
        base = {"attempt": 1, "exit_code": 1, "signal": None, "kind": "failed", "reason": "failed", "node": "n1"}
        trial.failure.write_text(json.dumps(base | failure))


def look(run: RunDir, verdicts: Verdicts | None = None) -> TrialState:
    return run_state(run, verdicts).trials[0]


START = {"attempt": 1, "job": "5", "node": "n1", "start": 1}
SAVED = {"attempt": 1, "exit_code": 85, "step": 40, "end": 2}
ENDED = {"attempt": 1, "exit_code": 1, "step": 40, "end": 2}


@pytest.mark.parametrize(
    ("lines", "queued", "state", "said"),
    [
        ([], TaskState("PENDING", "Resources, expected to start 12:00"), State.PENDING, "Resources, expected"),
        ([], TaskState("RUNNING"), State.PENDING, "starting"),
        ([], TaskState("CONFIGURING"), State.PENDING, "configuring"),
        ([START], TaskState("RUNNING"), State.RUNNING, "n1"),
        ([START], TaskState("COMPLETING"), State.RUNNING, "n1"),
        ([START, SAVED], TaskState("PENDING", "BeginTime"), State.REQUEUED, "BeginTime; saved a checkpoint at step 40"),
        ([START], TaskState("PENDING", "BeginTime"), State.REQUEUED, "BeginTime"),
        ([START, SAVED], TaskState("RUNNING"), State.REQUEUED, "starting"),
        # An older attempt that was thought dead writes its end after the newer one has begun.
        ([START, {**START, "attempt": 2, "node": "n2"}, ENDED], TaskState("RUNNING"), State.RUNNING, "n2"),
    ],
)
def test_in_the_queue(
    run: RunDir, slurm: Slurm, lines: Sequence[dict[str, Any]], queued: TaskState, state: State, said: str
) -> None:
    attempts(run, *lines)
    slurm.queued = queued
    trial = look(run)
    assert (trial.state, slurm.questions) == (state, ["queue"]), trial
    assert said in trial.detail


@pytest.mark.parametrize(
    ("failure", "told", "state", "said"),
    [
        ({}, None, State.FAILED, "exit code 1, attempt 1 on n1: the last line"),
        ({"kind": "oom", "signal": "KILL"}, None, State.OOM, "signal KILL"),
        ({"kind": "timeout", "reason": "stopped before it made a step"}, None, State.TIMEOUT, "before it made a step"),
        # What a signal ended, Slurm may know the reason of.
        ({"signal": "KILL"}, TaskState("OUT_OF_MEMORY", "exit 0:125"), State.OOM, "OUT_OF_MEMORY exit 0:125; signal"),
        ({"signal": "TERM"}, TaskState("TIMEOUT", "exit 0:15"), State.TIMEOUT, "TIMEOUT"),
        ({"signal": "KILL"}, TaskState("FAILED", "exit 1:0"), State.FAILED, "signal KILL, attempt 1"),
        ({"signal": "KILL"}, None, State.FAILED, "signal KILL, attempt 1"),
    ],
)
def test_with_a_record_of_its_failure(
    run: RunDir, slurm: Slurm, failure: dict[str, Any], told: TaskState | None, state: State, said: str
) -> None:
    attempts(run, START, ENDED, failure=failure, log="the last line\nsrun: error: n1: task 0\n")
    slurm.told = told
    trial = look(run)
    assert trial.state is state, trial
    assert said in trial.detail


def test_an_unfit_node_is_named_by_the_record_of_the_preflight(run: RunDir, slurm: Slurm) -> None:
    attempts(run, START, ENDED, failure={"kind": "node", "reason": "a node is not fit for it"})
    (run.trial(ID).path / "preflight.json").write_text('{"nodes": ["n4"], "message": "n4: there is no image /x.sif"}')
    trial = look(run)
    assert trial.state is State.FAILED
    assert trial.detail.endswith("n4: there is no image /x.sif")


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("TIMEOUT", State.TIMEOUT), ("PREEMPTED", State.PREEMPTED), ("OUT_OF_MEMORY", State.OOM),
        ("CANCELLED", State.CANCELLED), ("NODE_FAIL", State.FAILED), ("FAILED", State.FAILED),
        ("COMPLETED", State.UNKNOWN), ("RUNNING", State.UNKNOWN), (None, State.UNKNOWN),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lines", [[], [START], [START, SAVED]], ids=["never began", "killed", "checkpointed"])
def test_in_no_queue_and_without_a_record_only_the_history_knows(
    run: RunDir, slurm: Slurm, lines: list[dict[str, Any]], told: str | None, state: State
) -> None:
    attempts(run, *lines)
    slurm.told = TaskState(told, "exit 0:9") if told else None
    trial = look(run)
    assert trial.state is state, trial
    assert trial.state is not State.DONE, "only a result says so"
    assert ("saved a checkpoint at step 40" in trial.detail) == (SAVED in lines)


def test_the_history_is_asked_once_about_each_end(run: RunDir, slurm: Slurm) -> None:
    attempts(run, START)
    slurm.told = TaskState("TIMEOUT", "exit 0:15")
    verdicts: Verdicts = {}
    assert [look(run, verdicts).state for _ in range(3)] == [State.TIMEOUT] * 3
    assert slurm.questions == ["queue", "history", "queue", "queue"]


def test_a_history_that_lags_behind_is_asked_again(run: RunDir, slurm: Slurm) -> None:
    attempts(run, START)
    verdicts: Verdicts = {}
    slurm.told = TaskState("RUNNING", "exit 0:0")
    assert look(run, verdicts).state is State.UNKNOWN
    slurm.told = TaskState("OUT_OF_MEMORY", "exit 0:125")
    assert look(run, verdicts).state is State.OOM


def test_a_rendered_script_that_was_submitted_with_more_tasks_is_no_problem(run: RunDir, slurm: Slurm) -> None:
    slurm.queued = TaskState("PENDING", "Priority")
    slurm.index = 7
    assert look(run).state is State.UNKNOWN


def test_when_the_queue_is_silent_the_files_tell_what_they_can(run: RunDir, slurm: Slurm) -> None:
    slurm.silent = True
    attempts(run, START)
    state = run_state(run)
    assert (state.trials[0].state, state.ended) == (State.RUNNING, False)
    assert "gave no answer" in state.warning
    attempts(run, START, SAVED)
    assert look(run).state is State.UNKNOWN
    assert "history" not in slurm.questions


@pytest.fixture
def unanswered(run: RunDir) -> RunDir:
    """sbatch took the job and its answer was lost, or the script was rendered and piped to it by hand."""
    entry = json.loads(run.submissions.read_text())
    run.submissions.write_text(json.dumps({**entry, "id": None}) + "\n")
    return run


def test_a_job_that_was_found_in_the_queue_is_known_when_it_has_left_it(unanswered: RunDir, slurm: Slurm) -> None:
    slurm.queued = TaskState("PENDING", "Resources")
    assert look(unanswered).state is State.PENDING
    slurm.queued, slurm.told = None, TaskState("TIMEOUT", "exit 0:0")
    attempts(unanswered, START)
    assert look(unanswered).state is State.TIMEOUT
    unanswered.cancellations.write_text('{"task": "5", "time": 2}\n')
    assert look(unanswered).state is State.CANCELLED
    assert unanswered.submissions.read_text().count("\n") == 2, "it is noted once"


def test_a_rendered_script_that_was_given_to_sbatch_twice_has_two_jobs(unanswered: RunDir, slurm: Slurm) -> None:
    entry = json.loads(unanswered.submissions.read_text())
    unanswered.submissions.write_text(json.dumps({**entry, "rendered": True}) + "\n")
    for job in ("5", "6"):
        slurm.job, slurm.queued = job, TaskState("PENDING")
        look(unanswered)
    assert [entry.id for entry in read_submissions(unanswered)] == ["5", "6"]


def test_looking_at_a_run_that_is_not_ones_own_changes_nothing(
    unanswered: RunDir, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    slurm.queued = TaskState("PENDING")
    assert look(unanswered).state is State.PENDING
    assert unanswered.submissions.read_text().count("\n") == 1
