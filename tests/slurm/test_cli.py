"""The command `recipe` as a user meets it: what it prints, its exit codes, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.skips import need

Recipe = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = ["plan", "render", "submit", "status", "logs", "cancel", "results", "clean"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example(run_recipe: Recipe, command: str) -> None:
    done = run_recipe(command, "--help")
    assert done.returncode == 0
    assert f"Example:\n    recipe {command}" in done.stdout


def test_help_lists_the_commands_in_the_order_of_their_use(run_recipe: Recipe) -> None:
    text = run_recipe("--help").stdout
    places = [text.index(f"\n  {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_plan_shows_trials_resources_and_hours_and_writes_nothing(run_recipe: Recipe, recipe: Path, work: Path) -> None:
    done = run_recipe(
        "plan", recipe, "--cluster", "a100", "--set", "resources={gpus_per_node: 2, cpus: 4, time: 03:00:00}"
    )
    assert done.returncode == 0
    assert "stage glue  neobert glue · 1 node, 2 GPUs a node, 4 CPUs, 4G, 03:00:00" in done.stdout
    assert "4 trials: 4 to run, 0 skipped; at most 24.0 GPU-hours on cluster 'a100' (sbatch)" in done.stdout
    assert done.stdout.count("to run") == 5
    assert not (work / "runs").exists()


def test_plan_tells_what_would_be_skipped(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "2"})
    done = run_recipe("plan", recipe, "--cluster", stand_in, "--set", "grid.seed=[1, 2, 3]")
    assert "6 trials: 4 to run, 2 skipped" in done.stdout
    assert "to run: failed" in done.stdout
    assert "skipped: done" in done.stdout


def test_a_run_only_grows_and_other_trials_need_a_new_run(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    options = (recipe, "--cluster", stand_in)
    run_recipe("submit", *options, "--wait")
    other = ("--set", "config.optimizer.lr=1e-3")
    for command in ("plan", "render", "submit"):
        refuse(
            run_recipe(command, *options, *other), "has 4 trials that this recipe no longer has, and lacks 4", "--new"
        )
    assert "4 trials: 4 to run" in run_recipe("plan", *options, *other, "--new").stdout
    assert "nothing to submit" in run_recipe("submit", *options, "--set", "grid.seed=[1]").stdout
    assert run_recipe("status").stdout.count("done") == 5, "a subset leaves the others in sight"
    run_recipe("submit", *options, "--set", "grid.seed=[1, 2, 3]", "--wait")
    assert "6 trials: 6 done" in run_recipe("status").stdout


def test_damaged_files_of_one_trial_do_not_hide_the_others(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    results = sorted(work.glob("runs/sweep/*/trials/*/result.json"))
    results[0].write_text('{"score": null}')
    results[1].write_text("{")
    (results[2].parent / "attempts.jsonl").write_text('{"attempt": 1, "jo\n{"attempt": 1, "exit_code": 0, "end": 1}\n')
    text = run_recipe("status").stdout
    assert "2 done, 2 unknown" in text
    assert text.count("its files are damaged") == 2
    assert "unknown" in run_recipe("results").stdout, "a missing result is told, not averaged over"


def test_a_run_goes_on_after_a_line_of_its_ledger_was_cut_short(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    (ledger,) = work.glob("runs/*/*/submissions.jsonl")
    ledger.write_bytes(ledger.read_bytes()[:-30])
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--set", "grid.seed=[1, 2, 3]", "--wait")
    assert done.returncode == 0, done.stderr
    assert "6 done" in run_recipe("status").stdout


def test_runs_are_found_by_name_and_the_newest_is_the_one_submitted_last(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    options = (recipe, "--cluster", stand_in, "--wait", "--set", "name=v1.5")
    run_recipe("submit", *options, "--run", "zzz")
    run_recipe("submit", *options, "--new")
    for target in ((), ("v1.5",)):
        assert "v1.5/2" in run_recipe("status", *target).stdout
    assert "v1.5/zzz" in run_recipe("status", "zzz").stdout
    refuse(run_recipe("plan", recipe, "--run", "../x"), "--run: '../x' is no name")
    refuse(run_recipe("status", ""), "there is no run of ''")


def test_two_submissions_at_once_make_one_run(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> None:
    command = [sys.executable, "-m", "slurm.cli", "submit", str(recipe), "--cluster", str(stand_in)]
    processes = [subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    texts = sorted(process.communicate(timeout=60)[0].split(":")[0] for process in processes)
    assert texts == ["nothing to submit", "nothing to submit", "submitted to local"]
    assert len(list(work.glob("runs/sweep/2*"))) == 1
    run_recipe("cancel")


def test_what_failed_before_the_trial_began_is_in_the_logs(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    profile = json.loads(stand_in.read_text()) | {"modules": ["nosuch"]}
    stand_in.write_text(json.dumps(profile))
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    assert "cannot load the module nosuch: there is no command 'module'" in run_recipe("status").stdout
    assert "cannot load the module nosuch" in run_recipe("logs").stdout


def test_render_prints_the_script_that_submit_uses(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    printed = run_recipe("render", recipe, "--cluster", stand_in).stdout
    again = run_recipe("render", recipe, "--cluster", stand_in).stdout
    assert printed == again
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    (script,) = work.glob("runs/sweep/*/stages/glue/*/job.sh")
    assert script.read_text() == printed


def test_a_submission_writes_a_handful_of_files_however_many_trials(
    run_recipe: Recipe, recipe: Path, work: Path
) -> None:
    run_recipe("render", recipe, "--cluster", "testcluster", "--set", "grid.seed={{ range(500) }}")
    files = [path for path in work.glob("runs/**/*") if path.is_file()]
    assert len(files) <= 9, files
    (manifest,) = work.glob("runs/*/*/manifest.jsonl")
    assert len(manifest.read_text().splitlines()) == 1000


def test_the_run_directory_says_what_was_submitted(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    (run,) = work.glob("runs/sweep/2*")
    record = json.loads((run / "provenance.json").read_text())
    assert record["directory"] == str(work)
    assert record["cluster"] == str(stand_in)
    assert (run / "code" / record["code"]).is_file()
    assert "generated: 100" in (run / "recipe.yaml").read_text()


def test_results_come_in_every_format(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait")
    table = run_recipe("results").stdout
    assert table.split()[:9] == ["task_name", "metric", "done", "mean", "ci95", "sd", "median", "best", "baseline"]
    assert "2/2" in table
    assert "0.6500" in table
    assert "±0.6353" in table
    for form, start in {"csv": "task_name,", "json": "[", "markdown": "| task_name", "latex": "\\begin"}.items():
        assert run_recipe("results", "--format", form).stdout.startswith(start)


def test_logs_print_the_log_of_a_failed_trial_first(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "2"})
    done = run_recipe("logs")
    assert "it does not work" in done.stdout
    assert "attempt-1.log" in done.stderr
    ident = run_recipe("results", "--trials", "--format", "json").stdout
    first = json.loads(ident)[0]["trial"]
    assert f"trial {first} starts" in run_recipe("logs", "--trial", first[:5], "--follow").stdout
    assert "no trial begins with 'zzz'" in run_recipe("logs", "--trial", "zzz").stderr
    assert "has no attempt 7" in run_recipe("logs", "--trial", first, "--attempt", "7").stderr


def test_watch_tells_of_each_change_where_there_is_no_terminal(
    run_recipe: Recipe, recipe: Path, stand_in: Path
) -> None:
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--watch")
    assert done.returncode == 0
    assert "4 trials: 4 queued" in done.stdout or "4 trials:" in done.stdout
    assert "[4/4 done]" in done.stdout
    assert "accuracy 0.6000" in done.stdout


# ------------------------------------------------------------------------------------------------------ users' mistakes


def refuse(done: subprocess.CompletedProcess[str], *messages: str, code: int = 2) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("name: x\ntask: glue\nconfig:\n  sead: 1", ["bad.yaml:4: config.sead: unknown key; did you mean 'seed'?"]),
        ("name: x\ntask: glue\nresources: {cpus: two}", ["bad.yaml:3: resources.cpus: expected integer, found 'two'"]),
        ("name: x\ntask: glue\ngrid: {}", ["bad.yaml:3: grid: is empty: it gives no trial"]),
        ("name: x\ntask: glue\ngrid: {seed: []}", ["bad.yaml:3: grid.seed: is empty"]),
        (
            "name: x\ntask: glue\nconfig: {task_name: rte, model: {name_or_path: m}, data: {generated: 5}}\n"
            "grid: {seed: [1, 1]}",
            ["bad.yaml:4: grid.seed: two trials are the same: seed=1 and seed=1"],
        ),
        (
            'name: x\ntask: glue\nconfig: {task_name: "{{ vars.t }}", model: {name_or_path: m}, data: {generated: 5}}',
            ["bad.yaml:3: config.task_name: the Jinja variable 'vars.t' is not defined"],
        ),
        (
            "name: x\ntask: glue\nconfig: {task_name: rte, model: {allow_random_weights: true}, data: {dir: no/where}}",
            ["data.dir: there is no no/where"],
        ),
        ("{", ["bad.yaml:2: is not valid YAML"]),
    ],
)
def test_a_wrong_recipe_ends_with_a_message_and_nothing_is_written(
    run_recipe: Recipe, work: Path, text: str, messages: list[str]
) -> None:
    (work / "bad.yaml").write_text(text)
    refuse(run_recipe("submit", "bad.yaml"), *messages)
    assert not (work / "runs").exists()


def test_an_unreadable_recipe_is_one_message(run_recipe: Recipe, work: Path) -> None:
    (work / "folder.yaml").mkdir()
    refuse(run_recipe("plan", "folder.yaml"), "folder.yaml: cannot be read: Is a directory")
    refuse(run_recipe("plan", "missing.yaml"), "there is no recipe missing.yaml")


def test_no_sbatch_on_the_path_says_where_to_go(run_recipe: Recipe, recipe: Path, work: Path) -> None:
    done = run_recipe("submit", recipe, "--cluster", "testcluster", env={"PATH": str(work)})
    refuse(done, "there is no sbatch on PATH", "--cluster local")


@pytest.fixture
def fake_slurm(work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts commands of that name on PATH, with bash code as their body. (Real Slurm: test_sbatch.py.)"""
    (work / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{work / 'bin'}:{os.environ['PATH']}")

    def add(name: str, code: str) -> None:
        (work / "bin" / name).write_text(f"#!/bin/bash\n{code}\n")
        (work / "bin" / name).chmod(0o755)

    add("squeue", "exit 0")
    add("sacct", "exit 1")
    return add


def test_the_message_of_an_sbatch_that_refuses_is_shown(
    run_recipe: Recipe, recipe: Path, fake_slurm: Callable[[str, str], None]
) -> None:
    fake_slurm("sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    done = run_recipe("submit", recipe, "--cluster", "testcluster")
    refuse(done, "sbatch refused the job: sbatch: error: invalid partition specified: gpu")
    assert "4 not submitted" in run_recipe("status").stdout, "the run can be looked at, and submitted again"


def test_when_a_later_job_is_refused_the_earlier_ones_are_taken_back(
    run_recipe: Recipe, work: Path, recipe: Path, fake_slurm: Callable[[str, str], None]
) -> None:
    third = f'[ "$(wc -l < {work}/count)" = 3 ] && {{ echo no more >&2; exit 1; }}'
    fake_slurm("sbatch", f"echo x >> {work}/count; {third}; wc -l < {work}/count")
    fake_slurm("scancel", f'echo "$*" > {work}/cancelled')
    profile = work / "small.yaml"
    profile.write_text("backend: sbatch\nlimits: {max_array_size: 1}\n")
    refuse(run_recipe("submit", recipe, "--cluster", profile), "no more")
    assert (work / "cancelled").read_text() == "1 2\n"


def test_a_job_that_was_queued_although_its_submission_was_cut_off_is_adopted(
    run_recipe: Recipe, work: Path, recipe: Path, fake_slurm: Callable[[str, str], None]
) -> None:
    fake_slurm("sbatch", "kill -KILL $PPID")  # the launcher dies while it waits for the answer
    assert run_recipe("submit", recipe, "--cluster", "testcluster").returncode == -9
    (entry,) = [json.loads(line) for line in next(work.glob("runs/*/*/submissions.jsonl")).open()]
    rows = [("555", str(i), "PENDING", entry["comment"], "Priority", "N/A", "/out", "me", "\n") for i in range(4)]
    (work / "queue").write_text("".join("\x1f".join(row) for row in rows))
    fake_slurm("squeue", f"cat {work}/queue")
    fake_slurm("sbatch", f"touch {work}/again")
    done = run_recipe("submit", recipe, "--cluster", "testcluster")
    assert "nothing to submit" in done.stdout, done.stderr
    assert not (work / "again").exists()
    assert "4 pending" in run_recipe("status").stdout


def test_a_queue_that_does_not_answer_is_a_warning_in_plan_and_status_and_stops_a_submission(
    run_recipe: Recipe, recipe: Path, fake_slurm: Callable[[str, str], None]
) -> None:
    fake_slurm("sbatch", "echo 9")
    assert run_recipe("submit", recipe, "--cluster", "testcluster").returncode == 0
    fake_slurm("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert "warning: squeue failed: slurm_load_jobs" in run_recipe("plan", recipe, "--cluster", "testcluster").stdout
    status = run_recipe("status")
    assert status.returncode == 0
    assert "Unable to contact slurm controller" in status.stdout
    assert "4 unknown" in status.stdout, "never said to be finished"
    refuse(run_recipe("submit", recipe, "--cluster", "testcluster"), "Unable to contact slurm controller")


def test_a_run_directory_that_cannot_be_written_is_one_message(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    (work / "file").write_text("")
    refuse(run_recipe("submit", recipe, "--cluster", stand_in, "--runs", "file"), "Not a directory", code=1)


@pytest.mark.usefixtures("root")
def test_a_full_disk_is_one_message_and_nothing_is_queued(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    (work / "runs").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", work / "runs"], capture_output=True)
    need(mounted.returncode == 0, "the right to mount", "docker run --privileged ...")
    try:
        refuse(run_recipe("submit", recipe, "--cluster", stand_in), "No space left on device", code=1)
        assert not list(work.glob("runs/*/*/queue"))
    finally:
        subprocess.run(["umount", work / "runs"], check=True)


def test_a_path_that_is_no_text_is_one_message(run_recipe: Recipe, recipe: Path, stand_in: Path) -> None:
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--runs", os.fsdecode(b"caf\xe9"))
    refuse(done, "holds bytes that are no UTF-8 text")


def test_commands_without_a_run_say_how_to_make_one(run_recipe: Recipe, work: Path) -> None:
    for command in ("status", "logs", "cancel", "results"):
        refuse(run_recipe(command), "there is no run in runs; `recipe submit` makes one")
    refuse(run_recipe("status", "nosuch"), "there is no run of 'nosuch'")


def test_wrong_usage_is_clicks_own_message(run_recipe: Recipe) -> None:
    refuse(run_recipe("plan"), "Missing argument 'RECIPE'")
    refuse(run_recipe("plam", "x"), "No such command 'plam'")


def test_output_onto_a_full_disk_is_one_message(recipe: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "slurm.cli", "plan", str(recipe)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_a_reader_that_goes_away_is_no_error(recipe: Path) -> None:
    many = f"{sys.executable} -m slurm.cli plan {recipe} --all --set grid.seed='{{{{ range(3000) }}}}'"
    done = subprocess.run(["bash", "-c", f"{many} | head -1"], capture_output=True, text=True)
    assert done.stdout.startswith("stage glue")
    assert done.stderr == ""
