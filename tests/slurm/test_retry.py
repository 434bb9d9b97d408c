"""A run is taken up again from its own directory."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.provenance import _digest_of_zip
from slurm.retry import check_overrides
from slurm.rundir import RunDir, find_run
from slurm.session import reopen
from slurm.state import State, run_state

Recipe = Callable[..., subprocess.CompletedProcess[str]]


def failed_run(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> RunDir:
    """A sweep of four trials of which those with seed 1 have failed."""
    done = run_recipe("submit", recipe, "--cluster", stand_in, "--wait", env={"STAND_IN_FAIL": "1"})
    assert done.returncode == 1
    return find_run(work / "runs", None)


def test_what_failed_is_queued_again_without_the_recipe_and_from_anywhere(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path, tmp_path: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    recipe.unlink()
    stand_in.unlink()
    done = run_recipe("retry", run.path, env={"PWD": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "(2 tasks)" in done.stdout
    run_recipe("status", run.path, "--watch")
    assert run_state(run).counts == {State.DONE: 4}
    assert [trial.attempts for trial in run_state(run).trials] == [2, 1, 2, 1]
    assert "nothing to submit" in run_recipe("retry", "sweep").stdout


def test_one_trial_can_be_chosen_and_given_more(run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    chosen = run_state(run).trials[2]
    done = run_recipe("retry", "--trial", chosen.id[:6], "--set", "resources.time=00:20:00")
    assert "(1 task)" in done.stdout, done.stderr
    run_recipe("status", "--watch")
    assert [trial.state for trial in run_state(run).trials] == [State.FAILED, State.DONE, State.DONE, State.DONE]
    assert "time: 00:10:00" in run.recipe.read_text(), "that was for once; the recipe keeps its own"
    assert len(list(run.path.glob("stages/glue/*/job.sh"))) == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=x", "it can change only image, resources, array, env, secrets, binds"),
        ("description=x", "it can change only"),
        ("vars.x=1", "it can change only"),
        ("task=export", "it can change only"),
        ("extends=other.yaml", "it can change only"),
        ("unset=[grid]", "it can change only"),
        ("config.seed=3", "it can change only"),
        ("grid.seed=[1]", "it can change only"),
        ("resource.time=5", "it can change only"),
        ("stages={}", "it can change only"),
        ("stages.glue={}", "it can change only"),
        ("stages.glue.config.optimizer.lr=0.5", "it can change only"),
        ("stages.glue.config.seed=5", "it can change only"),
        ("stages.glue.needs=[a]", "it can change only"),
        ("stages.gleu.resources.time=5", "the run has no stage 'gleu'; did you mean 'glue'?"),
        ("nonsense", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
    ],
)
def test_overrides_that_would_change_the_trials_are_refused(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_overrides([override], ["glue"])
    assert len(raised.value.problems) == 1
    assert str(raised.value).startswith(f"--set {override}: ")
    assert expected in str(raised.value)


def test_overrides_of_how_trials_are_run_are_taken() -> None:
    check_overrides(
        ["resources.time=5", "resources={}", "env.A=b=c", "image=x.sif", "stages.glue.array.pack=2"], ["glue"]
    )


def test_a_refused_override_leaves_the_run_and_its_directory_as_they_were(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    before = sorted(work.rglob("*"))
    done = run_recipe("retry", "--set", "name=x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --set name=x: retry runs the same trials again")
    assert sorted(work.rglob("*")) == before
    assert "no trial begins with 'zzz'" in run_recipe("retry", run.path, "--trial", "zzz").stderr


def test_a_run_whose_directory_of_submission_is_gone_says_so(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    record = json.loads(run.provenance.read_text())
    run.provenance.write_text(json.dumps({**record, "directory": "/no/such/place"}))
    done = run_recipe("retry")
    assert done.returncode == 2
    assert "the run was submitted from /no/such/place" in done.stderr


def test_braces_that_were_meant_literally_are_not_filled_in_again(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    profile = json.loads(stand_in.read_text()) | {"env": {"SITE": "{% raw %}{{ site }}{% endraw %}"}}
    stand_in.write_text(json.dumps(profile))
    literal = "{% raw %}{{ user }}{% endraw %}"
    done = run_recipe(
        "submit",
        recipe,
        "--cluster",
        stand_in,
        "--wait",
        "--set",
        f'env={{T: "{literal}"}}',
        env={"STAND_IN_FAIL": "1"},
    )
    assert done.returncode == 1, done.stderr
    done = run_recipe("retry")
    assert done.returncode == 0, done.stderr
    script = max((work / "runs").glob("*/2*/stages/glue/*/job.sh"), key=lambda path: path.stat().st_mtime)
    assert "'T={{ user }}'" in script.read_text()
    assert "'SITE={{ site }}'" in script.read_text()


def test_a_retry_runs_the_code_of_the_submission_and_says_when_that_is_gone(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    (code,) = run.code.glob("*.zip")
    with zipfile.ZipFile(code, "a") as archive:  # as if the code of the checkout had changed since
        archive.writestr("neobert/older.py", "")
    other = code.rename(run.code / f"{_digest_of_zip(code)}.zip")
    run.provenance.write_text(run.provenance.read_text().replace(code.name, other.name))
    assert run_recipe("retry").returncode == 0
    run_recipe("status", "--watch")
    assert list(run.code.glob("*.zip")) == [other]
    assert json.loads(run.provenance.read_text())["code"] == other.name
    failed = run_state(run)
    assert failed.counts == {State.DONE: 4}
    other.unlink()
    (run.trial(failed.trials[0].id).result).unlink()
    done = run_recipe("retry")
    assert (done.returncode, "the code that the run was submitted with, is gone" in done.stderr) == (2, True)


def test_blanks_around_an_override_do_not_change_what_it_means(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    session = reopen(run, (" resources.mem =1G",))
    assert [stage.resources.mem for stage in session.plan.stages] == ["1G"]


def test_a_run_that_was_moved_out_of_its_recipes_directory_is_refused_with_where_it_belongs(
    run_recipe: Recipe, recipe: Path, stand_in: Path, work: Path
) -> None:
    run = failed_run(run_recipe, recipe, stand_in, work)
    moved = run.path.rename(work / "moved")
    done = run_recipe("retry", moved)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"move it to {work}/sweep/moved" in done.stderr
    assert not (work / "sweep").exists()
    (work / "elsewhere").mkdir()
    (work / "elsewhere/sweep").mkdir()
    back = moved.rename(work / "elsewhere/sweep/moved")
    done = run_recipe("retry", back)
    assert done.returncode == 0, done.stderr
    run_recipe("status", back, "--watch")
    assert run_state(RunDir(back)).counts == {State.DONE: 4}
