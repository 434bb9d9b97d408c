"""The ledger of a run's jobs: what it reads, what it asks, and what it can do without."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm import submissions
from slurm.backends import REST, QueuedTask, TaskState
from slurm.backends.sbatch import SbatchBackend
from slurm.rundir import RunDir, find_run
from slurm.state import State, run_state
from slurm.submissions import InFlight, Ledger, Submitted, in_flight, note, read_cancelled, read_submissions
from tests.slurm.backends.test_local import wait

Recipe = Callable[..., subprocess.CompletedProcess[str]]
IDS = [f"{number:012x}" for number in range(6)]


def entry(directory: str, **keys: Any) -> Submitted:
    base = {"stage": "glue", "directory": directory, "chunk": 0, "offset": 0, "tasks": 6, "pack": 1, "array": True,
            "backend": "sbatch", "name": "s.glue", "comment": f"recipe:one/glue/{directory}/0", "id": "5",
            "time": 1.0}  # fmt: skip
    return Submitted(**(base | keys))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "runs/s/one")
    run.path.mkdir(parents=True)
    return run


def submitted(run: RunDir, directory: str, ids: Collection[str], **keys: Any) -> None:
    job = run.job("glue", directory)
    job.mkdir(parents=True, exist_ok=True)
    (job / "trials.jsonl").write_text("".join(f'{{"id": "{id}", "task": "glue", "config": {{}}}}\n' for id in ids))
    note(run, entry(directory, **{"tasks": len(ids), **keys}))


def test_lists_are_read_from_the_newest_until_all_trials_are_accounted_for(run: RunDir) -> None:
    submitted(run, "old", IDS, id="5")
    submitted(run, "new", IDS, id="6", time=2.0)
    (run.job("glue", "old") / "trials.jsonl").unlink()
    ledger = Ledger(run)
    assert {given.job.id for given in ledger.last_given(IDS).values()} == {"6"}
    assert not ledger.warnings, "the older list was not even looked for"
    assert not Ledger(run).last_given([]), "nor is any for a run that is done"


def test_each_trial_is_known_by_the_job_that_it_was_given_to_last(run: RunDir) -> None:
    submitted(run, "old", IDS, id="5", pack=2, tasks=3)
    submitted(run, "new", IDS[3:5], id="6", time=2.0)
    submitted(run, "refused", IDS, id=None, time=3.0)
    given = Ledger(run).last_given(IDS)
    assert [given[id].task for id in IDS] == ["5_0", "5_0", "5_1", "6_0", "6_1", "5_2"]


WHOLE = "".join(f'{{"id": "{id}"}}\n' for id in IDS[:4])


@pytest.mark.parametrize("damage", [None, '{"id": "00"}\n{"di', WHOLE, ""], ids=["gone", "damaged", "short", "empty"])
def test_a_list_that_cannot_be_read_is_a_warning(run: RunDir, damage: str | None) -> None:
    submitted(run, "old", IDS, id="5")
    submitted(run, "new", IDS[:2], id="6", time=2.0)
    path = run.job("glue", "old") / "trials.jsonl"
    path.unlink() if damage is None else path.write_text(damage)
    ledger = Ledger(run)
    assert ledger.last_given(IDS).keys() == set(IDS[:2])
    (warning,) = ledger.warnings
    assert warning == "stages/glue/old/trials.jsonl is gone or damaged: which trials its jobs run is not known"


def test_lines_of_other_versions_are_read_as_far_as_they_are_understood(run: RunDir) -> None:
    note(run, entry("d"))
    note(run, entry("e", rendered=True, time=2.0))
    lines = [json.loads(line) for line in run.submissions.read_text().splitlines()]
    assert ["rendered" in line for line in lines] == [False, True], "a version that does not know it can read the rest"
    lines[0] |= {"of_a_later_version": 1}
    run.submissions.write_text("".join(json.dumps(line) + "\n" for line in (*lines, {"stage": "glue"})))
    assert [job.directory for job in read_submissions(run)] == ["d", "e"]


def test_lines_about_cancelled_tasks_that_lack_their_time_are_passed_over(run: RunDir) -> None:
    run.cancellations.write_text('{"task": "5_0"}\n{"time": 1.0}\n{"task": "5_1", "time": 2.0}\n{"task": "5_2", "ti')
    assert read_cancelled(run) == {"5_1": 2.0}


class Queue:
    def __init__(self, *tasks: QueuedTask):
        self.tasks = tasks
        self.asked: list[tuple[set[str], set[str]]] = []

    def queue(self, jobs: Collection[str], names: Collection[str]) -> list[QueuedTask]:
        self.asked.append((set(jobs), set(names)))
        return list(self.tasks)


def look(run: RunDir, monkeypatch: pytest.MonkeyPatch, *tasks: QueuedTask) -> tuple[list[InFlight], Queue]:
    queue = Queue(*tasks)
    monkeypatch.setattr(submissions, "get_backend", lambda *_: queue)
    return in_flight(Ledger(run)), queue


def task(name: str, comment: str = "site", output: str = "/x/slurm.out") -> QueuedTask:
    return QueuedTask(name, int(name.partition("_")[2]), TaskState("PENDING"), comment, output)


def test_jobs_are_asked_for_by_id_and_only_those_without_one_by_name(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run, "d", IDS, id="5")
    assert look(run, monkeypatch)[1].asked == [({"5"}, set())]
    submitted(run, "e", IDS, id=None, name="s.other", time=2.0)
    submitted(run, "f", IDS, id="7", name="s.rendered", rendered=True, time=3.0)
    assert look(run, monkeypatch)[1].asked == [({"5", "7"}, {"s.other", "s.rendered"})]


def test_a_job_is_known_by_its_comment_or_by_where_its_output_goes(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run, "d", IDS, id="5")
    ours = f"/home/a/{run.path.name}/stages/glue/d/logs/%A_%a.out"
    for known in (task("5_2", comment="recipe:one/glue/d/0"), task("5_2", output=ours)):
        assert [flight.trials for flight in look(run, monkeypatch, known)[0]] == [(IDS[2],)]
    others = task("5_2", comment="recipe:other/glue/d/0", output="/home/b/other/stages/glue/d/logs/%A_%a.out")
    assert not look(run, monkeypatch, others)[0]


def test_a_damaged_record_of_one_trial_does_not_hide_the_queue(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(run, "d", IDS, id="5")
    run.trial(IDS[2]).path.mkdir(parents=True)
    run.trial(IDS[2]).failure.write_text("")
    running = replace(task("5_2", comment="recipe:one/glue/d/0"), state=TaskState("RUNNING"))
    assert [flight.trials for flight in look(run, monkeypatch, running)[0]] == [(IDS[2],)]


def test_a_rendered_job_that_only_its_comment_could_tell_from_others_of_its_stage_is_not_guessed_at(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in (0, 1):
        submitted(run, "d", IDS, id=None, chunk=chunk, comment=f"recipe:one/glue/d/{chunk}", rendered=True, time=chunk)
    output = "/home/a/one/stages/glue/d/logs/%A_%a.out"
    (flight,) = look(run, monkeypatch, task("9_0", output=output))[0]
    assert flight.unlisted
    (flight,) = look(run, monkeypatch, task("9_0", comment="recipe:one/glue/d/1", output=output))[0]
    assert not flight.unlisted


def test_what_was_cancelled_before_a_job_of_the_same_id_was_submitted_is_another_job(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm counts from the beginning where its controller has lost its state."""
    submitted(run, "d", IDS, id="5", time=10.0)
    queued = [task(f"5_{index}", comment="recipe:one/glue/d/0") for index in (0, 1)]
    run.cancellations.write_text('{"task": "5_0", "time": 9.0}\n{"task": "5_1", "time": 11.0}\n')
    assert [flight.cancelled for flight in look(run, monkeypatch, *queued)[0]] == [False, True]


# ------------------------------------------------------------------------------------------------------- squeue


@pytest.fixture
def squeue(work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a squeue on PATH with bash code as its body, which notes what it is asked."""

    def put(code: str) -> Path:
        (work / "bin").mkdir(exist_ok=True)
        (work / "bin/squeue").write_text(f'#!/bin/bash\necho "${{@: -2:1}}" >> "{work}/asked"\n{code}\n')
        (work / "bin/squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{work / 'bin'}:/usr/bin:/bin")
        return work / "asked"

    return put


def test_more_ids_than_an_argument_may_hold_are_several_questions(squeue: Callable[[str], Path], work: Path) -> None:
    asked = squeue("")
    SbatchBackend(work).queue([str(number) for number in range(10_000_000, 10_004_500)], ["a", "b"])
    lines = asked.read_text().splitlines()
    assert [line.count(",") + 1 for line in lines] == [2000, 2000, 500, 2]
    assert max(map(len, lines)) < 128 * 1024
    assert lines[-1] == "--name=a,b"


def test_a_single_job_that_slurm_has_forgotten_is_in_no_queue(squeue: Callable[[str], Path], work: Path) -> None:
    squeue("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert SbatchBackend(work).queue(["7"], []) == []


def test_notices_among_the_lines_of_sacct_are_passed_over(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Welcome | to | the | cluster", "", "7|FAILED|3:0|00:10:00", "8_1|CANCELLED by 0|0:15|00:10:00",
             "8_[2-9%2]|PENDING|0:0|", "9||0:0|"]  # fmt: skip
    (work / "bin").mkdir()
    (work / "bin/sacct").write_text("#!/bin/bash\n" + "".join(f"echo '{line}'\n" for line in lines))
    (work / "bin/sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{work / 'bin'}:/usr/bin:/bin")
    assert SbatchBackend(work).history(["7", "8", "9"]) == {
        ("7", 0): TaskState("FAILED", "exit code 3", "00:10:00"),
        ("8", 1): TaskState("CANCELLED", "signal 15", "00:10:00"),
        ("8", REST): TaskState("PENDING"),
    }


# ------------------------------------------------------------------------------------- a run with a list that is gone


@pytest.fixture
def purged(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> RunDir:
    """Four trials, of which two failed and were queued again; the list of the first submission was removed since."""
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "2"})
    run_recipe("retry", "sweep", env={"STAND_IN_FAIL": "2"})
    run = find_run(work / "runs", None)
    wait(run, lambda state: state.ended)
    first = read_submissions(run)[0]
    first.manifest(run).unlink()
    return run


def test_an_old_list_that_is_gone_blocks_no_command(
    purged: RunDir, run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    assert "2 done, 2 failed" in run_recipe("status").stdout
    for command in (["status"], ["results"], ["logs"], ["cancel"], ["plan", recipe, "--cluster", stand_in]):
        done = run_recipe(*command)
        assert done.returncode == 0, done.stderr
    assert run_recipe("retry").returncode == 0
    assert wait(purged, lambda state: state.ended).counts == {State.DONE: 4}


def cut_short(path: Path) -> None:
    path.write_text(path.read_text().partition("\n")[0] + "\n")


@pytest.mark.parametrize("damage", [Path.unlink, cut_short])
def test_a_job_in_the_queue_whose_list_is_gone_is_shown_by_its_trials_and_not_queued_twice(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path, damage: Callable[[Path], None]
) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, env={"STAND_IN_STEPS": "400"})
    run = find_run(work / "runs", None)
    wait(run, lambda state: state.counts[State.RUNNING] > 0)
    damage(read_submissions(run)[0].manifest(run))
    state = run_state(run)
    assert state.counts[State.RUNNING] > 0
    assert "is gone or damaged" in state.notes[0]
    refused = run_recipe("submit", recipe, "--cluster", stand_in)
    assert refused.returncode == 2
    assert "which trials the jobs local-1 in the queue run is not known" in refused.stderr
    assert run_recipe("cancel").stdout.startswith("cancelled ")  # tasks whose lines are gone may have failed by now
    wait(run, lambda state: not in_flight(Ledger(run)))
    assert run_recipe("submit", recipe, "--cluster", stand_in, "--wait").returncode == 0


def test_a_run_whose_list_of_jobs_was_removed_is_not_queued_twice(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "2"})
    run = find_run(work / "runs", None)
    run.submissions.unlink()
    assert (
        "submissions.jsonl is gone: which jobs of the run are in the queue is not known" in run_recipe("status").stdout
    )
    for command in (["retry"], ["submit", recipe, "--cluster", stand_in]):
        refused = run_recipe(*command)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "make an empty file of that name and try again" in refused.stderr
    run.submissions.touch()
    assert run_recipe("submit", recipe, "--cluster", stand_in, "--wait").returncode == 0
