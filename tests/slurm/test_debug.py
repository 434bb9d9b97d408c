"""`recipe exec` and `recipe shell`: what they start, and what they refuse. tests/survival runs them for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.debug import find_trial
from slurm.session import open_session

ROOT = Path(__file__).parents[2]
Recipe = Callable[..., subprocess.CompletedProcess[str]]
STAND_IN = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.4.5")
else:
    print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}))
"""


@pytest.fixture
def site(work: Path) -> Path:
    """A profile whose container runtime tells how it was called."""
    program = work / "apptainer"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    (work / "n.sif").touch()
    profile = work / "site.yaml"
    profile.write_text(json.dumps({"backend": "sbatch", "container": {"runtime": str(program)}, "env": {"A": "1"}}))
    return profile


@pytest.fixture
def call(run_recipe: Recipe, recipe: Path, site: Path) -> Recipe:
    def call(verb: str, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return run_recipe(verb, recipe, "--cluster", site, "--set", "image=n.sif", *words, env=env)

    return call


def test_a_trial_is_chosen_by_its_place_or_its_id(call: Recipe, run_recipe: Recipe, recipe: Path, work: Path) -> None:
    done = call("exec", "--trial", 2)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    inner = seen["argv"][seen["argv"].index(str(work / "n.sif")) + 1 :]
    assert inner[:4] == ["python3", "-m", "neobert", "trial"]
    options = dict(zip(inner[4::2], inner[5::2], strict=True))
    row = json.loads(Path(options["--manifest"]).read_text())
    assert (row["config"]["task_name"], row["config"]["seed"]) == ("rte", 1)
    assert seen["env"]["APPTAINERENV_A"] == "1"
    assert Path(options["--output-dir"]).name == row["id"]
    assert "/exec/" in options["--output-dir"], "what is tried out is no result of a run"
    again = json.loads(call("exec", "--trial", row["id"][:5]).stdout)
    assert row["id"] in again["argv"][-1]
    assert run_recipe("status").returncode == 2, "there is no run"


def test_a_number_is_a_place_whatever_the_ids_begin_with(recipe: Path, work: Path) -> None:
    """Ids are hashes: of 40 of them, some begin with any digit, and no other begins so."""
    plan = open_session(str(recipe), ("grid.seed=[" + ", ".join(map(str, range(40))) + "]",)).plan
    assert any(trial.id.startswith(str(place)) for place in range(10) for _, trial in plan.trials)
    assert [find_trial(plan, str(place)) for place in range(len(plan.trials))] == plan.trials
    for _, trial in plan.trials:
        assert find_trial(plan, trial.id)[1] == trial


def test_what_a_job_would_make_in_the_run_is_made_apart(run_recipe: Recipe, work: Path, site: Path) -> None:
    recipe = work / "text.yaml"
    config = {"data": {"generated": 5}, "tokenizer": {"train_vocab_size": 64}, "output": "{{ run }}/text"}
    recipe.write_text(json.dumps({"name": "text", "task": "preprocess", "image": "n.sif", "config": config}))
    assert run_recipe("render", recipe, "--cluster", site).returncode == 0
    seen = json.loads(run_recipe("exec", recipe, "--cluster", site).stdout)
    words = seen["argv"]
    row = json.loads(Path(words[words.index("--manifest") + 1]).read_text())
    assert Path(row["config"]["output"]).parent.parent == work / "runs/text/exec"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--trial", "99999999"], "expected 0 to 3 or the beginning of an id"), (["--trial", "x"], "no trial begins so")],
)
def test_a_trial_that_is_not_there_is_told(call: Recipe, words: list[str], said: str) -> None:
    done = call("exec", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_ranks_of_the_job_around_it_do_not_reach_the_one_process(call: Recipe) -> None:
    ranks = {"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}
    seen = json.loads(call("exec", env=ranks).stdout)
    assert not {f"APPTAINERENV_{name}" for name in ranks} & seen["env"].keys()


def test_several_processes_are_said_to_be_one_here(call: Recipe) -> None:
    done = call("exec", "--set", "resources={nodes: 2, procs_per_node: 2, cpus: 2}")
    assert "its job has 4 processes and this is one: the global batch is 4 times smaller" in done.stderr


def test_the_images_own_code_and_other_commands(call: Recipe) -> None:
    seen = json.loads(call("exec", "--code", "image", "--", "ls", "-l", "a b").stdout)
    assert seen["argv"][-3:] == ["ls", "-l", "a b"]
    assert "APPTAINERENV_PYTHONPATH" not in seen["env"]
    assert "APPTAINERENV_PYTHONPATH" in json.loads(call("exec").stdout)["env"]
    assert json.loads(call("shell").stdout)["argv"][0] == "shell"


def test_without_a_container_there_is_nothing_to_enter(run_recipe: Recipe, recipe: Path) -> None:
    done = run_recipe("exec", recipe)
    assert done.returncode == 2
    assert "needs an `image`, and the cluster profile 'local' a `container.runtime`" in done.stderr
    assert not (recipe.parent / "runs").exists(), "nothing was written"


def test_two_at_once_have_directories_of_their_own(
    call: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The second stands still.
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.strftime = lambda *_: '20260131-120000'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    directories = []
    for trial in ("0", "1"):
        argv = json.loads(call("exec", "--trial", trial).stdout)["argv"]
        manifest = Path(argv[argv.index("--manifest") + 1])
        assert manifest.parent.name.startswith("20260131-120000")
        directories.append(manifest.parent)
    rows = [json.loads((directory / "trials.jsonl").read_text()) for directory in directories]
    assert [row["config"]["seed"] for row in rows] == [1, 2], "each still has its own trial"


def test_no_run_takes_the_place_of_what_is_tried_out(call: Recipe, work: Path) -> None:
    for verb in ("exec", "submit"):
        done = call(verb, "--run", "exec")
        assert done.returncode == 2
        assert "--run exec: that directory is for what `recipe exec` tries out" in done.stderr
    assert not (work / "runs").exists()


def test_on_a_login_node_the_scratch_of_jobs_is_replaced_and_that_is_said(call: Recipe, site: Path) -> None:
    profile = json.loads(site.read_text())
    site.write_text(json.dumps({**profile, "scratch": "/local/$SLURM_JOB_ID_NOT_SET"}))
    done = call("exec")
    assert done.returncode == 0, done.stderr
    assert "there is no scratch directory /local/$SLURM_JOB_ID_NOT_SET here: " in done.stderr
    assert "APPTAINERENV_TMPDIR" not in json.loads(done.stdout)["env"]
    (place := site.parent / "scratch").mkdir()
    site.write_text(json.dumps({**profile, "scratch": "$PLACE"}))
    done = call("exec", env={"PLACE": str(place)})
    assert "there is no scratch" not in done.stderr
    assert json.loads(done.stdout)["env"]["APPTAINERENV_TMPDIR"] == str(place)


def test_path_is_refused_where_it_would_hide_the_program_that_starts_the_container(
    call: Recipe, run_recipe: Recipe, recipe: Path, site: Path
) -> None:
    done = call("exec", "--set", "env.PATH=/only/in/the/image")
    assert done.returncode == 2
    assert "env.PATH: PATH says where the node finds srun" in done.stderr
    assert "container.flags: [--env, PATH=...]" in done.stderr
    assert run_recipe("plan", recipe, "--set", "env.PATH=/mine").returncode == 0, "without a container it is the job's"
    site.write_text(json.dumps({**json.loads(site.read_text()), "env": {"PATH": "/x"}}))
    assert "error: cluster profile: env.PATH: PATH says" in call("exec").stderr


def test_a_shell_is_opened_in_the_image_of_the_stage_that_is_meant(
    run_recipe: Recipe, write: Callable[[str, str], Path], site: Path, work: Path
) -> None:
    (work / "m.sif").touch()
    file = write("two.yaml", """
        name: two
        stages:
          a: {task: glue, image: n.sif, config: {task_name: rte, model: {name_or_path: m}, data: {generated: 9}}}
          b: {task: glue, image: m.sif, config: {task_name: cola, model: {name_or_path: m}, data: {generated: 9}}}
    """)  # fmt: skip
    for words, image in (([], "n.sif"), (["--trial", "1"], "m.sif")):
        done = run_recipe("shell", file, "--cluster", site, *words)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["argv"][-1] == str(work / image)


def test_a_secret_that_is_not_set_is_told_before_anything_is_written(call: Recipe, work: Path) -> None:
    for verb in ("exec", "submit"):
        done = call(verb, "--set", "secrets=[NOT_SET_TOKEN]")
        assert done.returncode == 2
        assert "NOT_SET_TOKEN is not set in the environment that submits" in done.stderr
    assert not (work / "runs").exists()


def test_an_image_in_a_registry_is_to_be_fetched_first(run_recipe: Recipe, recipe: Path, site: Path) -> None:
    done = run_recipe("submit", recipe, "--cluster", site, "--set", "image=docker://x/y")
    assert done.returncode == 2
    assert "pull IMAGE.sif docker://x/y" in done.stderr
