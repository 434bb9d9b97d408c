"""Recipes: what they extend, what overrides them, and the errors that they can have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.cluster import load_profile
from slurm.plan import make_plan
from slurm.recipe import bundled, load_recipe

Write = Callable[[str, str], Path]


def test_extends_merges_mappings_over_several_levels_and_replaces_everything_else(write: Write) -> None:
    write(
        "base.yaml",
        """
        name: base
        task: glue
        vars: {size: 8, list: [1, 2]}
        resources: {cpus: 2, time: 01:00:00}
        config:
          task_name: rte
          model: {name_or_path: m}
          data: {generated: 10}
          trainer: {max_steps: 5, logging_steps: 1}
    """,
    )
    write("deep/middle.yaml", "extends: ../base.yaml\nvars: {list: [3]}\nconfig: {trainer: {max_steps: 6}}\n")
    top = write("top.yaml", """
        extends: deep/middle.yaml
        name: top
        unset: [config.trainer.logging_steps]
        resources: {cpus: 4}
    """)  # fmt: skip
    spec = load_recipe(top).spec
    stage = spec.stages["glue"]
    assert spec.name == "top"
    assert spec.vars == {"size": 8, "list": [3]}
    assert (stage.resources.cpus, stage.resources.time) == (4, 3600)
    assert stage.config == {
        "task_name": "rte",
        "model": {"name_or_path": "m"},
        "data": {"generated": 10},
        "trainer": {"max_steps": 6},
    }


def test_an_inherited_value_is_blamed_on_its_own_file(write: Write) -> None:
    write("base.yaml", "name: base\ntask: glue\nresources:\n  cpus: many\n")
    top = write("top.yaml", "extends: base.yaml\nname: top\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:4: resources\.cpus: expected integer, found 'many'"):
        load_recipe(top)


def test_what_a_recipe_extends_may_lie_at_home(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("name: base\ntask: glue\n")
    write("top.yaml", "extends: ~/base.yaml\nname: top\n").rename(tmp_path / "top.yaml")
    assert load_recipe("~/top.yaml").spec.name == "top"


def test_extending_itself_is_an_error_that_shows_the_circle(write: Write) -> None:
    write("a.yaml", "extends: b.yaml\nname: a\n")
    write("b.yaml", "extends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"cannot extend itself: a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_recipe("a.yaml")


def test_overrides_have_yaml_types_and_reach_every_key(recipe: Path) -> None:
    overrides = [
        "config.optimizer.eps=3e-4", "resources.time=2-00:00:00", "grid.seed=[7]", "grid.optimizer.lr=[1e-3]",
        "vars.n={{ 1 + 1 }}", "config.model={hidden_size: 32}",
    ]  # fmt: skip
    loaded = load_recipe(recipe, overrides, ["grid.task_name"])
    stage = loaded.spec.stages["glue"]
    assert stage.config["optimizer"] == {"eps": 3e-4}
    assert stage.config["model"] == {"hidden_size": 32}
    assert stage.resources.time == 2 * 24 * 3600
    assert stage.grid == {"seed": [7], "optimizer.lr": [1e-3]}
    assert loaded.names["vars"]["n"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.cpu=4", r"--set resources\.cpu=4: resources\.cpu: unknown key; did you mean 'cpus'"),
        ("nonsense", "--set nonsense: expected KEY=VALUE"),
        ("a..b=1", r"'a\.\.b' is no dotted key"),
        ("name.x=1", "is 'sweep', so nothing can be set inside it"),
        ("resources.time=soon", "expected a time such as 01:30:00"),
        ("resources.time=0", "expected a time above zero"),
        ("resources.mem=4GB", "expected memory such as 16G"),
        ("resources.mem=16", "expected memory such as 16G or 500M .*, found 16"),
        ("grid.seed=[1", r"^--set grid\.seed=\[1: is not valid YAML"),
        ("grid=3", "grid: expected a mapping of axes or a list of points, found 3"),
        ("env.PYTHONPATH=x", "PYTHONPATH is set by the job script itself"),
        ("needs=[glue]", "needs: a stage cannot need itself"),
        ("vars.x=!!bool maybe", "is not valid YAML"),
        ("vars.x={{ env.NO_SUCH_THING }}", r"'env\.NO_SUCH_THING' is not defined \(in"),
        ("resources.procs_per_node=4", "cpus: 1 is fewer than the 4 processes"),
        ("task=gleu", "there is no task 'gleu'; did you mean 'glue'"),
        ("name=a b", "'a b' is no name"),
        ("env={A-B: x}", "'A-B' is no name of an environment variable"),
        ("env={A: 1}", r"env\.A: expected string, found 1"),
        ("vars.x={{ vars.y }}", r"vars\.x: the Jinja variable 'vars\.y' is not defined"),
        ("resources.mem={{ vars.y }}", "the Jinja variable 'vars.y' is not defined"),
        ("gird={}", "gird: unknown key; did you mean 'grid'"),
    ],
)
def test_a_wrong_override_is_blamed_on_the_command_line(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe, [override])


def test_an_override_that_the_grid_would_hide_is_refused(recipe: Path, write: Write) -> None:
    with pytest.raises(ConfigError, match=r"config\.seed: is an axis of the grid: use --set 'grid\.seed=\[\.\.\.\]'"):
        load_recipe(recipe, ["config.seed=3"])
    stages = write("s.yaml", "name: s\nstages:\n  a: {task: glue, grid: {'seed, optimizer.lr': [[1, 1e-3]]}}\n")
    with pytest.raises(ConfigError, match=r"use --set 'stages\.a\.grid\.optimizer\.lr="):
        load_recipe(stages, ["stages.a.config.optimizer.lr=1"])


def test_unset_of_what_is_not_set_is_an_error(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"--unset config\.trainer: config\.trainer: is not set"):
        load_recipe(recipe, [], ["config.trainer"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping of settings, found nothing"),
        ("[1]", "a recipe is a mapping of settings, found list"),
        ("name: x", "task: is required"),
        ("name: x\ntask: glue\ncongif: {}", r"bad\.yaml:3: congif: unknown key; did you mean 'config'"),
        ("name: x\ntask: glue\nstages: {}", "belongs inside one of the stages"),
        ("name: x\nstages: {}", "stages: expected .*at least 1"),
        ("name: x\nstages:\n  a: {task: glue, needs: [b]}", "bad.yaml:3: stages.a.needs: there is no stage 'b'"),
        ("name: x\nstages:\n  a: {task: glue, needs: [b]}\n  b: {task: glue, needs: [a]}", "stages need each other"),
        ("name: x\nstages:\n  a: {task: glue, gird: {}}", r"bad\.yaml:3: stages\.a\.gird: unknown key"),
        ("name: x\nextends: nothing.yaml", r"bad\.yaml:2: extends: there is no file"),
        ("name: x\nextends: [a]", "expected the path of one recipe"),
        ("name: x\nunset: 3", "expected a list of dotted keys"),
        ("name: x\ntask: glue\nvars: 3", "vars: expected a mapping"),
        ("name: 3\ntask: glue", r"bad\.yaml:1: name: expected string, found 3"),
        ("name: x\ntask: glue\nresources: [1]", "resources: expected a mapping"),
    ],
)
def test_a_wrong_recipe_is_told_with_file_and_line(write: Write, text: str, message: str) -> None:
    path = write("bad.yaml", "")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_stages_share_what_stands_at_the_top(write: Write) -> None:
    path = write("two.yaml", """
        name: two
        resources: {cpus: 2, mem: 1G}
        env: {A: "1"}
        stages:
          first: {task: glue, resources: {mem: 2G}}
          second: {task: glue, needs: [first], env: {B: "2"}}
    """)  # fmt: skip
    stages = load_recipe(path).spec.stages
    assert (stages["first"].resources.cpus, stages["first"].resources.mem) == (2, "2G")
    assert (stages["second"].resources.mem, stages["second"].env) == ("1G", {"A": "1", "B": "2"})
    with pytest.raises(ConfigError, match=r"two\.yaml:3: stages\.first\.resources\.cpu|resources\.cpu: unknown key"):
        load_recipe(path, ["resources.cpu=1"])


def test_a_recipe_that_comes_along_is_found_by_its_name_and_a_near_name_is_suggested(work: Path) -> None:
    assert load_recipe("demo").spec.name == "demo"
    with pytest.raises(ConfigError, match=r"there is no recipe demoo; did you mean 'demo'"):
        load_recipe("demoo")


def shipped() -> list[Path]:
    return sorted(path for path in bundled(".").rglob("*.yaml") if path.parent.name != "clusters")


@pytest.mark.parametrize("profile", ["local", "a100"])
@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(bundled("."))))
def test_every_recipe_that_comes_along_can_be_planned(path: Path, profile: str) -> None:
    recipe = load_recipe(path)
    assert recipe.spec.description
    assert make_plan(recipe, profile, load_profile(profile)).trials
