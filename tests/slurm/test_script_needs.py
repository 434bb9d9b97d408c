"""Job scripts of a stage that needs another: they start when all results are there, and never go on from older ones."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.inputs import stale_trials
from slurm.rundir import RunDir
from tests.slurm import test_render as scripts
from tests.slurm.test_render import DONE, NEEDED, SLURM, Shape, finish, scontrol, step, trial

Start = Callable[..., subprocess.Popen]
start = scripts.start  # the fixture

LOCAL = Shape({"backend": "local"}, needs=True)
FIRST, SECOND = (id for id, _ in NEEDED)
RESULT = 'while [ "$1" != --output-dir ]; do shift; done; echo "{}" > "$2/result.json"; '
KEEPS = 'while [ "$1" != --output-dir ]; do shift; done; mkdir -p "$2/checkpoints/checkpoint-5" "$2/model"; '
RECORD = '{"attempt": 1, "job": "local-1_0", "node": "n1", "start": %d.5}\n{"attempt": 1, "exit_code": 0, "end": 2.5}\n'


@pytest.fixture
def needed(work: Path) -> Callable[..., None]:
    """Gives the trials that are needed a result, with a text in it."""

    def make(*ids: str, text: str = "first") -> None:
        for id in ids or (FIRST, SECOND):
            directory = work / "run/trials" / id
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "result.json").write_text(json.dumps({"made": text}))

    return make


def stale(work: Path) -> dict[str, str]:
    """What the launcher says of the first trial, with the same files before it."""
    run, mine = RunDir(work / "run"), f"{0:012x}"
    rows = [{"id": id, "stage": stage} for id, stage in [*NEEDED, (mine, "second")]]
    done = {mine: run.trial(mine).last_attempt()} if run.trial(mine).result.exists() else {}
    return stale_trials(run, {"first": (), "second": ("first",)}, rows, done)


def kept(work: Path, number: int = 0) -> list[str]:
    place = trial(work, number) / "stale"
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_a_trial_whose_needs_lack_a_result_is_not_started_and_a_record_says_which(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed(FIRST)
    output = finish(start(LOCAL, {"python": DONE}), 1)
    assert f"not started: it needs first, whose trial {SECOND} has no result" in output
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["kind"], failure["reason"]) == ("needs", f"needs first, whose trial {SECOND} has no result")
    assert (failure["attempt"], failure["job"]) == (0, "local-1_0")
    assert sorted(path.name for path in trial(work, 0).iterdir()) == ["failure.json"], "it was no attempt"
    needed(SECOND)
    finish(start(LOCAL, {"python": DONE}), 0)
    assert (trial(work, 0) / "logs/attempt-1.log").exists()
    assert not (trial(work, 0) / "failure.json").exists()


def test_an_empty_result_is_none(start: Start, work: Path, needed: Callable[..., None]) -> None:
    needed()
    (work / "run/trials" / FIRST / "result.json").write_text("")
    assert f"whose trial {FIRST} has no result" in finish(start(LOCAL, {"python": DONE}), 1)


def test_all_trials_of_a_pack_are_blocked_and_start_when_the_same_job_is_queued_again(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    shape = Shape({"backend": "local"}, ("stages.second.array.pack=2",), needs=True)
    finish(start(shape, {"python": DONE}), 1)
    kinds = [json.loads((trial(work, n) / "failure.json").read_text())["kind"] for n in (0, 1)]
    assert kinds == ["needs", "needs"]
    needed()
    finish(start(shape, {"python": DONE}), 0)
    assert all((trial(work, number) / "result.json").exists() for number in (0, 1))


def test_a_result_that_has_just_been_written_elsewhere_is_waited_for(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    """NFS may show it late. The record of the attempt, which is read anew, says that it ended well."""
    needed(FIRST)
    (work / "run/trials" / SECOND).mkdir(parents=True)
    (work / "run/trials" / SECOND / "attempts.jsonl").write_text(RECORD % 1)
    begin = time.monotonic()
    process = start(LOCAL, {"python": DONE})
    timer = threading.Timer(2, needed, [SECOND])
    timer.start()
    finish(process, 0)
    timer.join()
    assert time.monotonic() - begin >= 2


@pytest.mark.parametrize(
    "lines",
    ['{"attempt": 1, "start": 1.0}\n', RECORD % 1 + '{"attempt": 2, "start": 3.0}\n', RECORD.replace(": 0", ": 1") % 1],
    ids=["running", "running again", "failed"],
)
def test_nothing_is_waited_for_that_has_not_ended_well(
    start: Start, work: Path, needed: Callable[..., None], lines: str
) -> None:
    needed(FIRST)
    (work / "run/trials" / SECOND).mkdir(parents=True)
    (work / "run/trials" / SECOND / "attempts.jsonl").write_text(lines)
    begin = time.monotonic()
    finish(start(LOCAL, {"python": DONE, "sleep": "exit 9"}), 1)
    assert time.monotonic() - begin < 20


def test_a_trial_that_is_done_runs_again_only_when_what_it_needs_was_made_again(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed()
    finish(start(LOCAL, {"python": KEEPS + RESULT}), 0)
    (trial(work, 0) / "result.json").write_text('{"score": 1}')
    assert "done already" in finish(start(LOCAL, {"python": "exit 9"}), 0)
    assert not stale(work)
    needed(FIRST, text="again")
    assert stale(work) == {f"{0:012x}": "made from other results of first than there are now"}
    finish(start(LOCAL, {"python": RESULT}), 0)
    assert (trial(work, 0) / "result.json").read_text() == "{}\n"
    assert kept(work) == ["attempt-1", "attempt-1/attempts.jsonl", "attempt-1/model", "attempt-1/result.json"]
    assert (trial(work, 0) / "stale/attempt-1/result.json").read_text() == '{"score": 1}', "kept for people"
    assert not (trial(work, 0) / "checkpoints").exists()
    log = (trial(work, 0) / "logs/attempt-2.log").read_text()
    assert "it begins anew; what it made before is in" in log
    assert not stale(work)


def test_checkpoints_are_gone_on_from_only_where_they_were_made_of_the_same(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed()
    finish(start(LOCAL, {"python": KEEPS + "exit 85"}), 85)
    finish(start(LOCAL, {"python": "exit 85"}), 85)
    assert (trial(work, 0) / "checkpoints/checkpoint-5").exists()
    needed(SECOND, text="again")
    finish(start(LOCAL, {"python": "exit 85"}), 85)
    assert not (trial(work, 0) / "checkpoints").exists()
    lines = (trial(work, 0) / "attempts.jsonl").read_text().splitlines()
    assert [json.loads(line)["attempt"] for line in lines] == [3, 3]


def test_a_list_that_has_grown_since_makes_nothing_old(start: Start, work: Path, needed: Callable[..., None]) -> None:
    """A point was added to the grid of what is needed: what was made of the others counts on."""
    needed()
    finish(start(LOCAL, {"python": RESULT}), 0)
    (lines,) = [path.read_text() for path in (work / "run/needs").iterdir()]
    run = work / "run"
    script = (work / "job.sh").read_text()
    (name,) = [path.name for path in (run / "needs").iterdir()]
    (run / "needs/0123456789ab.txt").write_text(lines + "aaaaaaaaaaa3 first\n")
    needed("aaaaaaaaaaa3")
    (work / "job.sh").write_text(script.replace(name, "0123456789ab.txt"))
    environment = {**os.environ, "RECIPE_JOB_ID": "local-2", "SLURM_ARRAY_TASK_ID": "0"}
    again = subprocess.run(["bash", str(work / "job.sh")], env=environment, capture_output=True, text=True)
    assert "done already" in again.stdout, again.stderr
    assert not stale(work)


@pytest.mark.parametrize("begin_after", [-100, -30], ids=["clearly before", "about the same time"])
@pytest.mark.parametrize("damage", ["", "no list"])
def test_what_an_earlier_version_made_is_judged_by_time(
    start: Start, work: Path, needed: Callable[..., None], begin_after: int, damage: str
) -> None:
    needed()
    directory = trial(work, 0)
    (directory / "checkpoints/checkpoint-5").mkdir(parents=True)
    record = RECORD % (time.time() + begin_after)
    if damage:
        record = record.replace(".5}", '.5, "needs": "0123456789ab", "inputs": "0123456789abcdef"}', 1)
    (directory / "attempts.jsonl").write_text(record)
    (directory / "result.json").write_text('{"score": 1}')
    old = begin_after < -60
    assert bool(stale(work)) == old
    output = finish(start(LOCAL, {"python": RESULT}), 0)
    assert ("done already" in output) == (not old)
    assert (directory / "checkpoints").exists() == (not old)


def test_putting_aside_that_was_interrupted_is_made_again_whole(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed()
    finish(start(LOCAL, {"python": KEEPS + RESULT}), 0)
    needed(text="again")
    once = f'[[ "$*" != *model* || -e "{work}/again" ]] || {{ touch "{work}/again"; kill -KILL $PPID; exit 1; }}'
    mv = f'{once}\nexec /bin/mv "$@"'
    finish(start(LOCAL, {"python": RESULT, "mv": mv}), -9)
    finish(start(LOCAL, {"python": 'ls "${@: -1}"; ' + RESULT, "mv": mv, "sleep": ""}), 0)
    log = (trial(work, 0) / "logs/attempt-3.log").read_text()
    assert "model" not in log.split("begins anew", 1)[1]
    found = {path.name for path in (trial(work, 0) / "stale").rglob("*")}
    assert {"model", "result.json", "attempts.jsonl"} <= found


def test_one_that_may_still_write_is_waited_for_before_anything_is_put_aside(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed()
    finish(start(LOCAL, {"python": "kill -KILL $PPID"}), -9)
    needed(text="again")
    tell = f'echo "$*" >> "{work}/slept"'
    finish(start(LOCAL, {"python": f'echo "$RECIPE_LEASE_WAIT" > "{work}/left"; ' + RESULT, "sleep": tell}), 0)
    assert (work / "slept").read_text() == "15\n"
    assert (work / "left").read_text() == "0\n", "and not once more"


def test_steps_that_were_made_of_other_inputs_do_not_count_as_progress(
    start: Start, work: Path, needed: Callable[..., None]
) -> None:
    needed()
    shape = Shape(SLURM, needs=True)
    commands = {"srun": step(700), "scontrol": scontrol(work, "RUNNING")}
    finish(start(shape, commands), 85)
    needed(text="again")
    finish(start(shape, {**commands, "srun": step(7)}), 85)
    assert (work / "scontrol").read_text() == "requeue 70_0\n" * 2, "step 7 is further than the beginning"


def test_thousands_of_needed_trials_cost_little(start: Start, work: Path) -> None:
    run = work / "run"
    ids = [f"{number:012x}" for number in range(100, 3100)]
    for id in ids:
        (run / "trials" / id).mkdir(parents=True)
        (run / "trials" / id / "result.json").write_text("{}")
    finish(start(LOCAL, {"python": DONE}), 1)  # writes the list
    (path,) = (run / "needs").iterdir()
    path.write_text("".join(f"{id} first\n" for id in ids))
    begin = time.monotonic()
    environment = {**os.environ, "RECIPE_JOB_ID": "local-2", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", str(work / "job.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 10
