"""Job scripts: what they say (golden files), that they are sound bash, and what they do when they run.

`python -m pytest tests/slurm/test_render.py --update-golden` writes the golden files anew: look at the difference.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm.cluster import Profile
from slurm.inputs import list_of, list_path
from slurm.plan import image_path, make_plan
from slurm.recipe import load_recipe
from slurm.render import Chunk, Job, chunks, enter, render
from slurm.rundir import RunDir
from slurm.schema import slurm_time

GOLDEN = Path(__file__).with_name("golden")
SLURM = {"backend": "sbatch", "partition": "gpu", "limits": {"max_array_size": 1001}}
A100 = SLURM | {
    "account": "nlp",
    "gpu_type": "a100",
    "container": {"runtime": "apptainer", "binds": ["/data:/data:ro"]},
}


TWO_STAGES = """
name: two
resources: {time: 00:10:00, mem: 100M}
stages:
  first:
    task: glue
    config: &config {task_name: rte, model: {allow_random_weights: true}, data: {generated: 100}}
    grid: {seed: [1, 2]}
  second:
    task: glue
    needs: [first]
    config: *config
    grid: {seed: [3, 4, 5, 6]}
"""
NEEDED = [("aaaaaaaaaaa1", "first"), ("aaaaaaaaaaa2", "first")]
"""The trials of `first`, under ids that are easy to see."""


@dataclass(frozen=True)
class Shape:
    """A kind of job: a profile, and what the recipe's overrides make of the sweep of four trials.

    Or of the second of two stages, which needs the first.
    """

    profile: dict[str, Any]
    overrides: tuple[str, ...] = ()
    trials: int = 4
    needs: bool = False


SHAPES = {
    "local": Shape({"backend": "local"}),
    "local-processes": Shape({"backend": "local"}, ("resources.procs_per_node=2", "resources.cpus=4")),
    "single": Shape(SLURM, trials=1),
    "array": Shape(SLURM, ("array.parallel=2",)),
    "array-packed": Shape(SLURM, ("array.pack=3", "resources.time=02:00:00")),
    "array-packed-needs": Shape(SLURM, ("stages.second.array.pack=3",), needs=True),
    "array-container": Shape(A100, ("image=/images/n.sif", "resources.gpus_per_node=1", "env={HF_HUB_OFFLINE: '1'}")),
    "multi-node": Shape(SLURM, ("resources.nodes=2", "resources.procs_per_node=2", "resources.cpus=8"), trials=1),
    "multi-node-container": Shape(
        A100 | {"scratch": "/local/$SLURM_JOB_ID", "secrets": ["WANDB_API_KEY"], "bad_nodes": "exclude",
                "gpus": "gres", "modules": ["cuda/12.4"], "env": {"NCCL_DEBUG": "WARN"}, "sbatch": ["--exclusive"],
                "srun": ["--mpi=none"], "image_dir": "/images", "qos": "long", "constraint": "nvlink"},
        ("image=neobert.sif", "resources={nodes: 4, gpus_per_node: 8, cpus: 64, mem: '0', time: 1-00:00:00}"), trials=1,
    ),
}  # fmt: skip


CONTAINERS = [name for name in SHAPES if "container" in name]
SCRIPTS = [*SHAPES, *(f"enter-{name}" for name in CONTAINERS)]


def make_job(recipe: Path, shape: Shape, run: Path = Path("/runs/sweep/one"), workdir: Path = Path("/home/me")) -> Job:
    profile = Profile.model_validate(shape.profile)
    if shape.needs:
        recipe = recipe.with_name("two.yaml")
        recipe.write_text(TWO_STAGES)
    plan = make_plan(load_recipe(recipe, shape.overrides), "test", profile)
    needs = list_path(RunDir(run), list_of(NEEDED)) if shape.needs else None
    return Job(
        recipe=plan.name, stage=plan.stages[-1], profile=profile, backend=profile.backend, trials=shape.trials, run=run,
        directory=run / "stages/glue/0123abcd", needs=needs, code=run / "code/f00d.zip", workdir=workdir,
        python="/usr/bin/python3",
    )  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_of_job_has_its_golden_script(name: str, recipe: Path, request: pytest.FixtureRequest) -> None:
    job = make_job(recipe, SHAPES[name])
    (chunk,) = chunks(job)
    text, golden = render(job, chunk), GOLDEN / f"{name}.sh"
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_container_has_its_golden_script(name: str, recipe: Path, request: pytest.FixtureRequest) -> None:
    text, golden = enter(make_job(recipe, SHAPES[name])), GOLDEN / f"enter-{name}.sh"
    assert text is not None
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_script_belongs_to_a_shape() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound_bash(name: str) -> None:
    script = str(GOLDEN / f"{name}.sh")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is missing: apt-get install shellcheck")
        pytest.skip("shellcheck is missing: apt-get install shellcheck")
    checked = subprocess.run(["shellcheck", "--shell=bash", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_chunks_stay_under_the_largest_index_and_share_the_parallel_limit(recipe: Path) -> None:
    shape = Shape(SLURM | {"limits": {"max_array_size": 4}}, ("array.parallel=7",), trials=10)
    assert chunks(make_job(recipe, shape)) == [Chunk(0, 0, 4, 3), Chunk(1, 4, 4, 2), Chunk(2, 8, 2, 2)]
    packed = Shape(shape.profile, ("array.pack=3",), trials=10)
    assert chunks(make_job(recipe, packed)) == [Chunk(0, 0, 4, None)]
    tight = Shape(shape.profile, ("array.parallel=2",), trials=10)
    with pytest.raises(ConfigError, match="2 is fewer than the 3 arrays that 10 array tasks need"):
        chunks(make_job(recipe, tight))
    local = Shape({"backend": "local", "limits": {"max_array_size": 4}}, trials=10)
    assert chunks(make_job(recipe, local)) == [Chunk(0, 0, 10, None)], "the local queue has no largest index"


def test_a_later_chunk_goes_on_where_the_one_before_ended(recipe: Path) -> None:
    job = make_job(recipe, Shape(SLURM | {"limits": {"max_array_size": 4}}, trials=10))
    last = chunks(job)[-1]
    text = render(job, last)
    assert "#SBATCH --array=0-1\n" in text
    assert "\noffset=8 " in text


@pytest.mark.parametrize("bad", ["50%", 'a"b', "a\nb", "a#b", "a\\b", "a'b"])
def test_a_directory_that_sbatch_would_misread_is_refused(recipe: Path, bad: str) -> None:
    job = make_job(recipe, Shape(SLURM), run=Path("/runs") / bad)
    with pytest.raises(ConfigError, match="cannot be the directory of a Slurm job's output"):
        render(job, chunks(job)[0])


def test_a_path_that_bind_cannot_express_is_refused(recipe: Path) -> None:
    job = make_job(recipe, Shape(A100, ("image=/x.sif",)), run=Path("/runs/a:b"))
    with pytest.raises(ConfigError, match="cannot be bound into a container"):
        enter(job)


def test_an_image_is_used_only_where_the_profile_has_a_container_runtime(recipe: Path) -> None:
    assert (
        image_path(make_job(recipe, Shape({"backend": "local"}, ("image=a.sif",))).stage, Profile(backend="local"))
        is None
    )


@pytest.mark.parametrize(("seconds", "text"), [(59, "00:00:59"), (3600, "01:00:00"), (90061, "1-01:01:01")])
def test_times_are_written_as_slurm_reads_them(seconds: int, text: str) -> None:
    assert slurm_time(seconds) == text


# ------------------------------------------------------------------------------------------- scripts that run for real


@pytest.fixture
def start(work: Path, recipe: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the script of a shape in bash, with `command` (bash code) in place of Python, srun, scontrol and so on."""

    def start(
        shape: Shape, commands: dict[str, str], task: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        bin_dir = work / "bin"
        bin_dir.mkdir(exist_ok=True)
        for name, code in commands.items():
            (bin_dir / name).write_text(f"#!/bin/bash\n{code}\n")
            (bin_dir / name).chmod(0o755)
        run = work / "run"
        job = make_job(recipe, replace(shape, profile=shape.profile | {"python": None}), run, work)
        job = Job(**{**vars(job), "python": str(bin_dir / "python")})
        job.directory.mkdir(parents=True, exist_ok=True)
        lines = [f'{{"id": "{i:012x}", "task": "glue"}}\n' for i in range(shape.trials)]
        (job.directory / "trials.jsonl").write_text("".join(lines))
        if job.needs is not None:
            job.needs.parent.mkdir(exist_ok=True)
            job.needs.write_text(list_of(NEEDED))
        script = work / "job.sh"
        script.write_text(render(job, chunks(job)[0]))
        slurm = {
            "SLURM_JOB_ID": "77",
            "SLURM_ARRAY_JOB_ID": "70",
            "SLURMD_NODENAME": "node9",
            "SLURM_JOB_NODELIST": "node[8-9]",
        }
        environment = {
            **os.environ, **(slurm if job.backend == "sbatch" else {"RECIPE_JOB_ID": "local-1"}),
            "SLURM_ARRAY_TASK_ID": str(task), "PATH": f"{bin_dir}:{os.environ['PATH']}", **(env or {}),
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", str(script)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


Start = Callable[..., subprocess.Popen]
DONE = 'while [ "$1" != --output-dir ]; do shift; done; echo "{}" > "$2/result.json"'
ECHO = 'printf "%s\\n" "$(basename "$0")" "$@"; env | grep -E "^(RANK|WORLD_SIZE|MASTER_|LOCAL_RANK)" | sort; '


def finish(process: subprocess.Popen[str], code: int) -> str:
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code, output
    return output


def trial(work: Path, number: int) -> Path:
    return work / f"run/trials/{number:012x}"


def test_a_task_runs_its_own_trial_and_keeps_a_log(start: Start, work: Path) -> None:
    finish(start(Shape({"backend": "local"}), {"python": ECHO + DONE}, task=2), 0)
    assert (trial(work, 2) / "result.json").exists()
    log = (trial(work, 2) / "logs/attempt-1.log").read_text().splitlines()
    assert log[0].startswith("== attempt 1, job local-1_2 on ")
    manifest = work / "run/stages/glue/0123abcd/trials.jsonl"
    assert log[1:] == [
        "python", "-m", "neobert", "trial",
        "--manifest", str(manifest), "--index", "2", "--output-dir", str(trial(work, 2)),
    ]  # fmt: skip
    first, last = map(json.loads, (trial(work, 2) / "attempts.jsonl").read_text().splitlines())
    assert (first["attempt"], first["job"], last["exit_code"]) == (1, "local-1_2", 0)


def test_a_packed_task_runs_its_trials_in_turn_and_the_last_task_what_is_left(start: Start, work: Path) -> None:
    shape = Shape({"backend": "local"}, ("array.pack=3",), trials=4)
    finish(start(shape, {"python": DONE}, task=1), 0)
    assert [p.name for p in (work / "run/trials").iterdir()] == [f"{3:012x}"]
    finish(start(shape, {"python": DONE}, task=0), 0)
    assert len(list((work / "run/trials").glob("*/result.json"))) == 4


def test_one_failed_trial_of_a_pack_does_not_stop_the_others(start: Start, work: Path) -> None:
    python = f'case "$*" in *"--index 0"*) exit 3;; esac; {DONE}'
    finish(start(Shape({"backend": "local"}, ("array.pack=2",)), {"python": python}), 1)
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["exit_code"], failure["signal"], failure["attempt"]) == (3, None, 1)
    assert (trial(work, 1) / "result.json").exists()


def test_a_trial_that_is_done_is_not_run_again(start: Start, work: Path) -> None:
    finish(start(Shape({"backend": "local"}), {"python": DONE}), 0)
    output = finish(start(Shape({"backend": "local"}), {"python": "exit 9"}), 0)
    assert "done already" in output
    assert not (trial(work, 0) / "logs/attempt-2.log").exists()


def test_no_error_and_no_result_is_a_failure(start: Start, work: Path) -> None:
    finish(start(Shape({"backend": "local"}), {"python": "true"}), 1)
    assert "without a result" in json.loads((trial(work, 0) / "failure.json").read_text())["reason"]


def test_a_failed_trial_of_a_pack_is_not_tried_again_when_the_job_goes_on_for_the_others(
    start: Start, work: Path
) -> None:
    shape = Shape({"backend": "local"}, ("array.pack=2",))
    second = f'[ -e "{work}/again" ] || {{ touch "{work}/again"; exit 85; }}'
    python = f'case "$*" in *"--index 0"*) exit 3;; esac; {second}; {DONE}'
    finish(start(shape, {"python": python}), 85)
    finish(start(shape, {"python": python}), 1)
    assert not (trial(work, 0) / "logs/attempt-2.log").exists()
    assert (trial(work, 1) / "result.json").exists()


def test_a_signal_at_the_end_of_a_trial_leaves_the_rest_of_its_pack_for_the_next_start(
    start: Start, work: Path
) -> None:
    python = f'trap "" TERM; touch "{work}/ready"; while [ ! -e "{work}/go" ]; do sleep 0.02; done; {DONE}'
    process = start(Shape({"backend": "local"}, ("array.pack=2",)), {"python": python})
    while not (work / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    (work / "go").touch()
    finish(process, 85)
    assert (trial(work, 0) / "result.json").exists()
    assert not (trial(work, 1) / "logs").exists()


@pytest.mark.parametrize("name", ["run", "manifest", "pack", "UID", "SECONDS", "command", "children"])
def test_a_users_variable_may_have_any_name_that_the_script_uses(start: Start, work: Path, name: str) -> None:
    shape = Shape({"backend": "local"}, (f"env={{{name}: a b}}",))
    finish(start(shape, {"python": f'env > "{work}/env"; {DONE}'}), 0)
    assert f"\n{name}=a b\n" in "\n" + (work / "env").read_text()


def test_what_a_distributed_run_left_in_the_environment_does_not_reach_the_trial(start: Start, work: Path) -> None:
    left = {"RANK": "3", "WORLD_SIZE": "4", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "MASTER_ADDR": "x"}
    finish(start(Shape({"backend": "local"}), {"python": ECHO + f'env > "{work}/env"; {DONE}'}, env=left), 0)
    assert not set(left) & {line.split("=")[0] for line in (work / "env").read_text().splitlines()}


def test_a_single_job_is_not_misled_by_an_array_that_it_was_submitted_from(start: Start, work: Path) -> None:
    finish(start(SHAPES["single"], {"srun": DONE, "scontrol": "echo node8"}, task=5), 0)
    assert (trial(work, 0) / "result.json").exists()


def test_a_task_beyond_the_trials_is_an_error_and_not_a_success(start: Start, work: Path) -> None:
    assert "there is no array task 9" in finish(start(Shape({"backend": "local"}), {}, task=9), 1)


def test_modules_may_use_variables_that_are_not_set(start: Start, work: Path) -> None:
    shape = Shape({"backend": "local", "modules": ["cuda"]})
    load = 'module() { echo "$_NOT_SET_ANYWHERE" > /dev/null; }; export -f module'
    script = f'{load}; exec bash "{work}/job.sh"'
    start(shape, {"python": DONE}).wait()
    (work / "again.sh").write_text(script)
    done = subprocess.run(
        ["bash", str(work / "again.sh")], env={**os.environ, "RECIPE_JOB_ID": "local-1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_killed_trial_is_recorded_with_its_signal_and_a_new_attempt_forgets_the_failure(
    start: Start, work: Path
) -> None:
    finish(start(Shape({"backend": "local"}), {"python": "kill -KILL $$"}), 1)
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["exit_code"], failure["signal"]) == (137, "KILL")
    finish(start(Shape({"backend": "local"}), {"python": DONE}), 0)
    assert not (trial(work, 0) / "failure.json").exists()
    assert (trial(work, 0) / "logs/attempt-2.log").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_reaches_the_trial_and_its_85_comes_back(start: Start, work: Path, number: int, times: int) -> None:
    name = signal.Signals(number).name.removeprefix("SIG")
    python = f'trap "sleep 0.3; exit 85" {name}; touch "{work}/ready"; while :; do sleep 0.05; done'
    process = start(Shape({"backend": "local"}), {"python": python})
    while not (work / "ready").exists():
        time.sleep(0.02)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    finish(process, 85)
    assert not (trial(work, 0) / "failure.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_warning_that_comes_before_the_trial_can_catch_it_does_no_harm(start: Start, work: Path, number: int) -> None:
    process = start(Shape({"backend": "local"}), {"python": f'touch "{work}/ready"; exec sleep 30'})
    while not (work / "ready").exists():
        time.sleep(0.02)
    process.send_signal(number)
    finish(process, 85)
    assert not (trial(work, 0) / "failure.json").exists()


def test_several_processes_on_this_machine_get_ranks_and_one_address(start: Start, work: Path) -> None:
    shape = Shape({"backend": "local"}, ("resources.procs_per_node=3", "resources.cpus=3"))
    finish(start(shape, {"python": f'env > "{work}/env-$RANK"; {DONE}'}), 0)
    environments = [
        dict(line.split("=", 1) for line in (work / f"env-{rank}").read_text().splitlines() if "=" in line)
        for rank in range(3)
    ]
    assert [e["LOCAL_RANK"] for e in environments] == ["0", "1", "2"]
    assert {e["WORLD_SIZE"] for e in environments} == {"3"}
    assert {e["MASTER_ADDR"] for e in environments} == {"127.0.0.1"}
    (port,) = {int(e["MASTER_PORT"]) for e in environments}
    assert 10000 <= port < 32768, "outside of the ephemeral range"


def test_when_one_process_fails_the_others_are_ended_and_its_code_is_told(start: Start, work: Path) -> None:
    shape = Shape({"backend": "local"}, ("resources.procs_per_node=2", "resources.cpus=2"))
    begin = time.monotonic()
    finish(start(shape, {"python": '[ "$RANK" = 1 ] && exit 7; exec sleep 20'}), 1)
    assert time.monotonic() - begin < 10
    assert json.loads((trial(work, 0) / "failure.json").read_text())["exit_code"] == 7


def test_under_slurm_the_trial_starts_through_srun_with_a_rendezvous(start: Start, work: Path) -> None:
    commands = {"srun": ECHO + DONE, "scontrol": 'test "$*" = "show hostnames node[8-9]" && printf "node8\\nnode9\\n"'}
    finish(start(SHAPES["multi-node"], commands), 0)
    log = (trial(work, 0) / "logs/attempt-1.log").read_text()
    assert "\n--nodes=2\n--ntasks=4\n--ntasks-per-node=2\n--cpus-per-task=4\n--kill-on-bad-exit=1\n" in log
    assert "\nMASTER_ADDR=node8\nMASTER_PORT=1" in log or "\nMASTER_ADDR=node8\nMASTER_PORT=2" in log


def scontrol(work: Path, state: str, preempted: str = "None") -> str:
    """A stand-in for scontrol, which tells of the job and writes down what else it is asked."""
    return f"""case "$*" in
        "show hostnames"*) echo node8 ;;
        "show job"*) echo "JobId=77 JobState={state} PreemptTime={preempted} ExcNodeList=(null) Requeue=1" ;;
        *) echo "$*" >> "{work}/scontrol" ;;
    esac"""


def step(number: int) -> str:
    """Bash for a trial that gets to a step and saves a checkpoint."""
    log = 'while [ "$1" != --output-dir ]; do shift; done; '
    return log + f"""echo '{{"schema": 1, "step": {number}}}' > "$2/progress.json"; exit 85"""


@pytest.mark.parametrize(
    ("state", "requeued"), [("RUNNING", True), ("CANCELLED", False), ("COMPLETING", False), ("PREEMPTED", False)]
)
def test_an_interrupted_task_is_requeued_alone_unless_slurm_ends_it(
    start: Start, work: Path, state: str, requeued: bool
) -> None:
    finish(start(SHAPES["array"], {"srun": step(7), "scontrol": scontrol(work, state)}, task=3), 85)
    assert (work / "scontrol").exists() == requeued
    if requeued:
        assert (work / "scontrol").read_text() == "requeue 70_3\n"


def test_a_task_that_made_no_step_is_not_started_again_unless_it_was_preempted(start: Start, work: Path) -> None:
    for reached in (0, 5):
        finish(
            start(SHAPES["array"], {"srun": step(5), "scontrol": scontrol(work, "RUNNING")}), 85 if not reached else 1
        )
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["kind"], failure["attempt"]) == ("timeout", 2)
    assert "before it made a step" in failure["reason"]
    assert (work / "scontrol").read_text() == "requeue 70_0\n"
    preempted = scontrol(work, "RUNNING", "2026-01-31T12:00:00")
    finish(start(SHAPES["array"], {"srun": step(5), "scontrol": preempted}), 85)
    assert (work / "scontrol").read_text() == "requeue 70_0\n" * 2


def test_sigterm_to_processes_that_cannot_catch_it_yet_is_a_preemption_or_the_end_of_one_that_failed(
    start: Start, work: Path
) -> None:
    """Slurm sends it at the beginning of a grace time, and srun to the others when one process has failed."""
    killed = "kill -TERM $$"
    finish(start(SHAPES["array"], {"srun": killed, "scontrol": scontrol(work, "RUNNING", "2026-01-31T12:00:00")}), 85)
    assert (work / "scontrol").read_text() == "requeue 70_0\n"
    finish(start(SHAPES["array"], {"srun": killed, "scontrol": scontrol(work, "RUNNING")}), 1)
    assert json.loads((trial(work, 0) / "failure.json").read_text())["signal"] == "TERM"


def test_after_so_many_restarts_it_is_a_failure(start: Start, work: Path) -> None:
    commands = {"srun": step(9), "scontrol": scontrol(work, "RUNNING")}
    finish(start(SHAPES["array"], commands, env={"SLURM_RESTART_COUNT": "20"}), 1)
    assert not (work / "scontrol").exists()
    assert "interrupted 20 times" in json.loads((trial(work, 0) / "failure.json").read_text())["reason"]


def test_an_attempt_that_was_replaced_ends_at_once_and_leaves_no_record_of_a_failure(start: Start, work: Path) -> None:
    """As when its node was cut off, and the trial has started again elsewhere."""
    python = 'while [ "$1" != --output-dir ]; do shift; done; echo 2 > "$2/lease"; exit 86'
    output = finish(start(Shape({"backend": "local"}, ("array.pack=2",)), {"python": python}), 1)
    assert "attempt 2 has taken it over" in output
    assert not (trial(work, 0) / "failure.json").exists()
    assert not (trial(work, 1) / "logs").exists(), "nor does it go on with others"


def test_a_controller_that_is_away_for_a_moment_costs_no_requeue(start: Start, work: Path) -> None:
    away = f'[ "$(cat "{work}/asked" 2>/dev/null | wc -l)" -ge 2 ] || {{ echo x >> "{work}/asked"; exit 1; }}\n'
    told = scontrol(work, "RUNNING")
    commands = {
        "srun": step(7),
        "scontrol": f'case "$1" in requeue | show) [ "$2" = hostnames ] || {{ {away} }};; esac\n{told}',
    }
    finish(start(SHAPES["array"], commands), 85)
    assert (work / "scontrol").read_text() == "requeue 70_0\n"


def test_slurms_word_on_the_job_comes_before_the_count_of_its_restarts(start: Start, work: Path) -> None:
    commands = {"srun": step(9), "scontrol": scontrol(work, "CANCELLED")}
    finish(start(SHAPES["array"], commands, env={"SLURM_RESTART_COUNT": "20"}), 85)
    assert not (trial(work, 0) / "failure.json").exists(), "it was cancelled, and did not run out of restarts"


def test_what_sbatch_kept_from_the_job_srun_passes_on_all_the_same(start: Start, work: Path) -> None:
    commands = {"srun": f'echo "${{SLURM_EXPORT_ENV-unset}}" > "{work}/seen"; {DONE}', "scontrol": "echo node8"}
    finish(start(SHAPES["single"], commands, env={"SLURM_EXPORT_ENV": "NONE"}), 0)
    assert (work / "seen").read_text() == "unset\n"


def test_a_trial_that_has_ended_keeps_its_record_when_the_job_cannot_go_on(start: Start, work: Path) -> None:
    wait = f'touch "{work}/ready"; while [ ! -e "{work}/go" ]; do sleep 0.02; done; exit 3'
    shape = Shape(SLURM, ("array.pack=2",))
    commands = {"srun": wait, "scontrol": scontrol(work, "RUNNING")}
    process = start(shape, commands, env={"SLURM_RESTART_COUNT": "20"})
    while not (work / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    (work / "go").touch()
    assert "no more restarts" in finish(process, 1)
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["exit_code"], failure["kind"]) == (3, "failed")


def test_an_exit_code_above_128_is_a_signal_only_where_there_is_one(start: Start, work: Path) -> None:
    finish(start(Shape({"backend": "local"}), {"python": "exit 255"}), 1)
    failure = json.loads((trial(work, 0) / "failure.json").read_text())
    assert (failure["exit_code"], failure["signal"]) == (255, None)


def test_a_new_attempt_waits_for_one_whose_end_nobody_saw(start: Start, work: Path) -> None:
    tell = f'echo "$RECIPE_ATTEMPT $RECIPE_LEASE_WAIT" >> "{work}/seen"; '
    finish(start(Shape({"backend": "local"}), {"python": tell + "exit 3"}), 1)
    finish(start(Shape({"backend": "local"}), {"python": tell + "kill -KILL $PPID; sleep 1"}), -9)
    finish(start(Shape({"backend": "local"}), {"python": tell + DONE}), 0)
    assert (work / "seen").read_text() == "1 0\n2 0\n3 15\n"
    assert (trial(work, 0) / "lease").read_text() == "3\n"


def test_memory_that_ran_out_is_told_from_other_failures(start: Start, work: Path) -> None:
    said = {
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.0.": "oom",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB": "oom",
        "hint: if you run out of memory, make the batch smaller": "failed",
    }
    for text, kind in said.items():
        finish(start(Shape({"backend": "local"}), {"python": f"echo '{text}'; exit 1"}), 1)
        assert json.loads((trial(work, 0) / "failure.json").read_text())["kind"] == kind


def test_a_job_goes_on_without_the_node_that_was_found_unfit(start: Start, work: Path) -> None:
    record = '{"schema": 1, "attempt": 1, "nodes": ["node9", "node8"], "message": "no image"}'
    srun = f'while [ "$1" != --output-dir ]; do shift; done; echo \'{record}\' > "$2/preflight.json"; exit 87'
    commands = {"srun": srun, "scontrol": scontrol(work, "RUNNING")}
    finish(start(Shape(SLURM | {"bad_nodes": "exclude"}), commands), 85)
    assert (work / "scontrol").read_text() == "requeue 70_0\nupdate jobid=70_0 excnodelist=node9,node8\n"
    assert not (trial(work, 0) / "failure.json").exists(), "it goes on, and nobody is told that it failed"
    (work / "scontrol").unlink()
    finish(start(SHAPES["array"], commands), 1)
    assert not (work / "scontrol").exists(), "only where the profile says so"
    assert json.loads((trial(work, 0) / "failure.json").read_text())["kind"] == "node"


def test_a_script_started_by_hand_says_what_it_needs(start: Start, work: Path) -> None:
    output = finish(start(Shape({"backend": "local"}), {}, env={"RECIPE_JOB_ID": ""}), 1)
    assert "this script is started by the local queue" in output
