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
BEFORE = {**START, "job": "4", "start": 0}  # of an earlier job
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


KILLED = {"exit_code": 137, "signal": "KILL"}
ENDED_BY_KILL = (
    "killed by signal 9 (KILL) at step 40 of 90 (likely out of memory, or by an administrator), attempt 1 on n1"
)


@pytest.mark.parametrize(
    ("failure", "told", "state", "expected"),
    [
        ({}, None, State.FAILED, "exit code 1, attempt 1 on n1: the last line"),
        (KILLED, None, State.FAILED, ENDED_BY_KILL),
        (KILLED, TaskState("FAILED", "exit code 1"), State.FAILED, ENDED_BY_KILL),
        ({"kind": "oom", **KILLED}, None, State.OOM, "killed by signal 9 (KILL) at step 40 of 90, attempt 1 on n1"),
        # What a signal ended, Slurm may know the reason of.
        (KILLED, TaskState("OUT_OF_MEMORY"), State.OOM,
         f"Slurm found it out of memory; last checkpoint at step 30 of 90; {ENDED_BY_KILL}"),
        ({"exit_code": 143, "signal": "TERM"}, TaskState("TIMEOUT", limit="01:00:00"), State.TIMEOUT,
         "time limit of 01:00:00 reached; last checkpoint at step 30 of 90; continue with `recipe retry one`"),
        ({"exit_code": 143, "signal": "TERM"}, TaskState("CANCELLED"), State.CANCELLED,
         "cancelled; last checkpoint at step 30 of 90; killed by signal 15 (TERM) at step 40 of 90, attempt 1 on n1"),
        ({"kind": "timeout", "exit_code": 85, "reason": "interrupted 20 times: no more restarts"}, None, State.TIMEOUT,
         "interrupted 20 times: no more restarts; last checkpoint at step 30 of 90; continue with `recipe retry one`"),
    ],
)  # fmt: skip
def test_with_a_record_of_its_failure(
    run: RunDir, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any], told: TaskState | None,
    state: State, expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(run.path.parent)
    log = "the last line\n" if failure == {} else "step 40/90 (0.4 epochs): loss 1\n"
    attempts(run, START, ENDED, failure=failure, log=log)
    checkpoints(run, 20, 30)
    slurm.told = told
    trial = look(run)
    assert (trial.state, trial.detail) == (state, expected)


def checkpoints(run: RunDir, *steps: int) -> None:
    trial = run.trial(ID)
    trial.progress.write_text('{"step": 40, "total_steps": 90}')
    for step in steps:
        (trial.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        (trial.checkpoints / f"checkpoint-{step}" / "complete.json").touch()
    (trial.checkpoints / "checkpoint-80").mkdir(parents=True)  # never finished


@pytest.mark.parametrize(
    ("lines", "steps", "told", "expected"),
    [
        ([START, SAVED], (40,), TaskState("TIMEOUT", limit="00:01:00"),
         "time limit of 00:01:00 reached; saved a checkpoint at step 40 of 90; continue with `recipe retry one`"),
        ([START], (20, 30), TaskState("TIMEOUT"),
         "time limit reached; last checkpoint at step 30 of 90; continue with `recipe retry one`"),
        ([START], (), TaskState("TIMEOUT", limit="00:01:00"),
         "time limit of 00:01:00 reached; no checkpoint; "
         "`recipe retry one --set resources.time=...` gives it more time"),
        ([START, SAVED], (40,), TaskState("PREEMPTED"),
         "preempted; saved a checkpoint at step 40 of 90; continue with `recipe retry one`"),
        ([START], (30,), TaskState("NODE_FAIL"), "its node failed; last checkpoint at step 30 of 90"),
        ([START], (), TaskState("FAILED", "exit code 1"), "the job failed (exit code 1)"),
    ],
)  # fmt: skip
def test_without_a_record_the_verdict_is_told_with_what_is_kept(
    run: RunDir, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]], steps: tuple[int, ...],
    told: TaskState, expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(run.path.parent)
    attempts(run, *lines)
    checkpoints(run, *steps)
    slurm.told = told
    assert look(run).detail == expected


def test_slurms_word_in_the_log_stands_where_there_are_no_accounts(run: RunDir, slurm: Slurm) -> None:
    line = "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 21:40:45 DUE TO TIME LIMIT ***\n"
    attempts(run, START, ENDED, failure=KILLED, log=line + "srun: error: n1: task 0: Killed\n")
    trial = look(run)
    assert trial.state is State.TIMEOUT
    assert trial.detail.startswith("time limit reached; no checkpoint; ")


def test_without_accounts_and_without_a_record_slurms_word_in_the_log_stands(run: RunDir, slurm: Slurm) -> None:
    attempts(
        run, START, SAVED, log="slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 21:40:45 DUE TO TIME LIMIT ***\n"
    )
    trial = look(run)
    assert trial.state is State.TIMEOUT
    assert trial.detail.startswith("time limit reached; saved a checkpoint at step 40; continue with `recipe retry ")


def test_the_first_process_that_failed_is_told_and_slurm_is_not_asked(run: RunDir, slurm: Slurm) -> None:
    log = "[rank 3] neobert: bad row\nsrun: error: n2: task 3: Exited with exit code 1\n"
    log += "srun: error: n1: task 0: Terminated\n"
    attempts(run, START, ENDED, failure={"exit_code": 143, "signal": "TERM"}, log=log)
    trial = look(run)
    assert (trial.state, trial.detail) == (State.FAILED, "exit code 1, attempt 1 on n2 (rank 3): bad row")
    assert slurm.questions == ["queue"]


@pytest.mark.parametrize("log", [None, "", "\xff\n", "== attempt 1, job 5 on n1, now\n"])
def test_a_log_that_says_nothing_costs_no_more_than_the_message(run: RunDir, slurm: Slurm, log: str | None) -> None:
    attempts(run, START, ENDED, failure={}, log=log or "")
    if log is None:
        run.trial(ID).log(1).unlink()
    assert look(run).detail.removesuffix(": \xff") == "exit code 1, attempt 1 on n1"


def test_damaged_progress_hides_neither_the_failure_nor_the_verdict(run: RunDir, slurm: Slurm) -> None:
    attempts(run, START)
    checkpoints(run, 20)
    (run.trial(ID).checkpoints / "checkpoint-best").mkdir()
    (run.trial(ID).checkpoints / "checkpoint-best/complete.json").touch()
    for text in ("[", '{"step": "x", "total_steps": null}'):
        run.trial(ID).progress.write_text(text)
        slurm.told = TaskState("NODE_FAIL")
        assert look(run).detail == "its node failed; last checkpoint at step 20"
        attempts(run, START, ENDED, failure=KILLED)
        slurm.told = None
        assert look(run).detail.startswith("killed by signal 9 (KILL) at step 40 (likely")
        run.trial(ID).failure.unlink()
        attempts(run, START)


def test_what_the_script_printed_of_a_trial_that_never_began_is_told(run: RunDir, slurm: Slurm) -> None:
    output = run.path / "stages/glue/d/logs/5.out"
    output.parent.mkdir()
    output.write_text("module: command not found\nrecipe: node1: cannot load the module cuda/12: no such\n")
    slurm.told = TaskState("FAILED", "exit code 1")
    assert look(run).detail == "the job failed (exit code 1): node1: cannot load the module cuda/12: no such"


@pytest.mark.parametrize(
    ("told", "state", "expected"),
    [
        (TaskState("FAILED", "exit code 1"), State.FAILED,
         "the job failed (exit code 1): n1: cannot load the module x"),
        (None, State.UNKNOWN, "in no queue, and it left no result; before that: exit code 1, attempt 1 on n1; "
         "`recipe retry one` runs it again: n1: cannot load the module x"),
    ],
)  # fmt: skip
def test_a_retry_that_ended_before_it_began_is_not_shown_as_the_attempt_before(
    run: RunDir, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, told: TaskState | None, state: State, expected: str
) -> None:
    monkeypatch.chdir(run.path.parent)
    attempts(run, BEFORE, ENDED, failure={"job": "4", "time": 0})
    (run.path / "stages/glue/d/logs").mkdir()
    (run.path / "stages/glue/d/logs/5.out").write_text("recipe: n1: cannot load the module x\n")
    slurm.told = told
    trial = look(run)
    assert (trial.state, trial.detail) == (state, expected)


def test_a_retry_that_was_cancelled_while_it_waited_says_so_and_what_was_wrong_before(
    run: RunDir, slurm: Slurm
) -> None:
    attempts(run, BEFORE, ENDED, failure={"job": "4", "time": 0})
    run.cancellations.write_text('{"task": "5", "time": 2.0}\n')
    trial = look(run)
    assert (trial.state, trial.detail) == (State.CANCELLED, "before that: exit code 1, attempt 1 on n1")


def test_a_stale_trial_whose_new_job_ended_before_it_began_is_not_told_to_have_ended_well(
    run: RunDir, slurm: Slurm
) -> None:
    attempts(run, BEFORE, {**ENDED, "exit_code": 0})
    slurm.told = TaskState("FAILED", "exit code 1")
    trial = look(run)
    assert (trial.state, trial.detail) == (State.FAILED, "the job failed (exit code 1)")


def test_a_failure_that_is_younger_than_all_known_jobs_is_shown(run: RunDir, slurm: Slurm) -> None:
    """Its job was rendered and submitted by hand, and nobody looked while it was in the queue."""
    attempts(run, {**START, "job": "9"}, ENDED, failure={"job": "9", "time": 5})
    assert look(run).detail == "exit code 1, attempt 1 on n1"


def test_an_unfit_node_is_named_by_the_record_of_the_preflight(run: RunDir, slurm: Slurm) -> None:
    attempts(run, START, ENDED, failure={"kind": "node", "reason": "bad start"})
    (run.trial(ID).path / "preflight.json").write_text('{"nodes": ["n4"], "message": "n4: there is no image /x.sif"}')
    trial = look(run)
    assert trial.state is State.FAILED
    assert trial.detail == "bad start: n4: there is no image /x.sif"


def test_a_trial_that_waits_shows_what_was_wrong_with_the_node_before(run: RunDir, slurm: Slurm) -> None:
    excluded = {"nodes": ["n1"], "message": "n1: 2 GPUs were asked for (CUDA...)", "reason": "2 GPUs were asked for"}
    attempts(run, START, {**ENDED, "exit_code": 87}, {"attempt": 1, "job": "5", "excluded": excluded})
    slurm.queued = TaskState("PENDING", "BadConstraints")
    assert look(run).detail == "BadConstraints; excluded n1: 2 GPUs were asked for"
    attempts(run, START, {"attempt": 1, "job": "5", "excluded": {**excluded, "reason": ""}}, {**START, "attempt": 2})
    assert look(run).detail == "BadConstraints"


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


def test_a_trial_of_which_nothing_is_known_shows_its_last_checkpoint_and_how_to_go_on(
    run: RunDir, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path.parent)
    attempts(run, START)
    assert look(run).detail == "in no queue, and it left no result; `recipe retry one` runs it again"
    checkpoints(run, 30)
    expected = "in no queue, and it left no result; last checkpoint at step 30 of 90; `recipe retry one` runs it again"
    assert look(run).detail == expected
    slurm.told = TaskState("COMPLETED")
    assert look(run).detail == f"COMPLETED; {expected}"
    slurm.told = TaskState("RUNNING")
    assert "retry" not in look(run).detail, "the accounts do not know yet"


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
