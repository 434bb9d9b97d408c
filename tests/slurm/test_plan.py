"""Plans: the trials of each stage, their ids, and what a profile refuses."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.cluster import Container, Limits, Profile
from slurm.plan import RUN, Plan, make_plan, missing_paths, paths_of
from slurm.recipe import load_recipe

Write = Callable[[str, str], Path]
LOCAL = Profile(backend="local")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
OWN = sorted(path for path in RECIPES.rglob("*.yaml") if path.parent.name != "clusters")


def plan(path: Path, *overrides: str, profile: Profile = LOCAL) -> Plan:
    return make_plan(load_recipe(path, overrides), "local", profile)


def ids(made: Plan) -> list[str]:
    return [trial.id for _, trial in made.trials]


@pytest.mark.parametrize("path", OWN, ids=[str(path.relative_to(RECIPES)) for path in OWN])
def test_every_recipe_that_comes_with_the_project_has_trials(path: Path) -> None:
    assert ids(plan(path))


def test_a_trial_is_known_by_its_task_and_resolved_config_alone(recipe: Path) -> None:
    first = ids(plan(recipe))
    assert len(set(first)) == 4
    assert ids(plan(recipe, "name=other", "resources.cpus=2", "array.pack=2")) == first
    assert ids(plan(recipe, "config.optimizer.lr=2e-5", "config.optimizer.weight_decay=0.01")) == first, "the defaults"
    assert not set(ids(plan(recipe, "config.optimizer.lr=3e-5"))) & set(first)
    assert ids(plan(recipe, "grid.seed=[2, 1]")) == [first[1], first[0], first[3], first[2]]


def test_a_manifest_line_begins_with_the_id_and_holds_the_whole_config(recipe: Path) -> None:
    trial = plan(recipe).stages[0].trials[0]
    line = trial.manifest_line(Path("/run"))
    assert line.startswith(f'{{"id": "{trial.id}"')
    assert json.loads(line)["config"]["task_name"] == "cola"
    assert json.loads(line)["config"]["optimizer"]["lr"] == 2e-5, "defaults are written out"


def test_two_equal_trials_are_an_error(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="two trials are the same: task_name=cola seed=1 and task_name=cola seed=1"):
        plan(recipe, "grid.seed=[1, 1]")
    with pytest.raises(ConfigError, match="two trials are the same"):
        plan(recipe, "grid={optimizer.lr: [1, 1.0]}", "config.task_name=rte")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.task_name=[rtee]", r"grid\.task_name: expected .*did you mean 'rte'"),
        ("grid.optimiser.lr=[1e-5]", "grid.optimiser.lr: .*unknown key; did you mean 'optimizer'"),
        ("config.data.generatd=3", r"config\.data\.generatd: unknown key; did you mean 'generated'"),
        ("grid.data.dir=[x]", "expected exactly one of dir, hub, generated, and own files .*; found dir and generated"),
        ("grid.seed=[a, b]", r"grid\.seed: expected integer, found 'a'"),
    ],
)
def test_a_wrong_config_is_told_where_it_was_written(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan(recipe, override)
    assert f"--set {override}" in str(caught.value)


def test_the_line_in_the_file_is_named(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("generated: 100", "genrated: 100"))
    with pytest.raises(ConfigError, match=r"sweep\.yaml:7: config\.data\.genrated: unknown key"):
        plan(recipe)


def test_config_values_may_depend_on_the_point(recipe: Path) -> None:
    made = plan(recipe, "config.data.max_train_samples={{ config.seed * 10 }}")
    samples = [json.loads(trial.config)["data"]["max_train_samples"] for _, trial in made.trials]
    assert samples == [10, 20, 10, 20]


def test_a_value_is_filled_in_once_and_never_again(write: Write) -> None:
    once = '"{% raw %}{{ x }}{% endraw %}"'
    path = write("once.yaml", f"""
        name: once
        env: {{A: {once}}}
        stages:
          one:
            task: glue
            env: {{B: {once}}}
            config: {{task_name: rte, data: {{generated: 5}}, model: {{tokenizer: {once}, allow_random_weights: true}}}}
            grid: {{model.name_or_path: [{once}]}}
    """)  # fmt: skip
    (stage,) = plan(path).stages
    assert stage.env == {"A": "{{ x }}", "B": "{{ x }}"}
    model = json.loads(stage.trials[0].config)["model"]
    assert (model["tokenizer"], model["name_or_path"]) == ("{{ x }}", "{{ x }}")


def test_stages_with_the_same_trial_are_an_error(write: Write) -> None:
    stage = "{task: glue, config: {task_name: rte, model: {allow_random_weights: true}, data: {generated: 9}}}"
    path = write("same.yaml", f"name: same\nstages:\n  one: {stage}\n  two: {stage}\n")
    with pytest.raises(ConfigError, match=r"same\.yaml:4: stages\.two: its trial .* is one of stage 'one' as well"):
        plan(path)


def test_a_later_stage_names_the_directory_of_an_earlier_trial(write: Write) -> None:
    path = write("stages.yaml", """
        name: two
        stages:
          second:
            task: glue
            needs: [first]
            config: {task_name: rte, data: {generated: 9}, model: {name_or_path: "{{ stages.first.dir }}/checkpoint"}}
          first: {task: glue, config: {task_name: mnli, model: {allow_random_weights: true}, data: {generated: 9}}}
    """)  # fmt: skip
    made = plan(path)
    assert [stage.name for stage in made.stages] == ["first", "second"], "in an order in which they can run"
    (first,), (second,) = (stage.trials for stage in made.stages)
    assert json.loads(second.config)["model"]["name_or_path"] == f"{RUN}/trials/{first.id}/checkpoint"
    line = json.loads(second.manifest_line(Path('/a "b"')))
    assert line["config"]["model"]["name_or_path"] == f'/a "b"/trials/{first.id}/checkpoint'
    with pytest.raises(ConfigError, match=r"'stages\.frist' is not defined; did you mean 'first'"):
        plan(path, "stages.second.config.model.name_or_path={{ stages.frist.dir }}")
    with pytest.raises(ConfigError, match=r"'stages\.first' is not defined; it must be in `needs`"):
        plan(path, "stages.second.needs=[]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.nodes=3", "nodes: 3 is more than the cluster profile allows: 2"),
        ("resources.time=00:30:01", "time: 02:00:04 .* is more than the cluster profile allows: 02:00:00"),
        ("resources.time=00:40:00", r"time: 02:40:00 \(a trial's time x pack\) is more"),
        ("resources.gpus_per_node=1", "gpus_per_node: 1 is more than the cluster profile allows: 0"),
        ("resources.cpus=9", "cpus: 9 is more"),
    ],
)
def test_more_than_the_site_has_is_refused(recipe: Path, override: str, message: str) -> None:
    limits = Limits(max_nodes=2, max_time=120, max_gpus_per_node=0, max_cpus=8)
    with pytest.raises(ConfigError, match=message):
        plan(recipe, override, "array.pack=4", profile=Profile(backend="sbatch", limits=limits))


def test_missing_data_is_told_once_for_all_trials_and_not_for_scratch(recipe: Path) -> None:
    def missing(*overrides: str, profile: Profile = LOCAL) -> list[str]:
        loaded = load_recipe(recipe, overrides)
        return [str(problem) for problem in missing_paths(make_plan(loaded, "local", profile), loaded)]

    (problem,) = missing("config.data={dir: no/where}")
    assert problem.startswith("--set config.data={dir: no/where}: config.data.dir: there is no no/where")
    assert missing("config.data={dir: /scratch/glue}", profile=Profile(backend="local", scratch="/scratch")) == []
    boxed = Profile(backend="sbatch", container=Container(runtime="apptainer"), image_dir="/images")
    (problem,) = missing("image=no.sif", profile=boxed)
    assert "image: there is no /images/no.sif" in problem
    assert missing("image=no.sif") == [], "without a container runtime an image is not used"


def test_a_tilde_is_looked_for_at_home_and_stays_in_what_identifies_a_trial(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def missing(data: str) -> list[str]:
        loaded = load_recipe(recipe, [f"config.data={data}"])
        return [str(problem) for problem in missing_paths(make_plan(loaded, "local", LOCAL), loaded)]

    (problem,) = missing("{dir: ~/glue}")
    assert "config.data.dir: there is no ~/glue" in problem
    (tmp_path / "glue").symlink_to(tmp_path / "gone")
    (problem,) = missing("{dir: ~/glue}")
    assert f"there is no ~/glue ({tmp_path}/glue is a link to {tmp_path}/gone, which does not exist)" in problem
    (tmp_path / "gone").mkdir()
    assert missing("{dir: ~/glue}") == []
    (stage,) = plan(recipe, "config.data={dir: ~/glue}", "binds=[~/glue, '~/glue:/data:ro']").stages
    assert '"dir":"~/glue"' in stage.trials[0].config
    assert [path.found for path in paths_of(stage)] == [[tmp_path / "glue"]]
    assert stage.binds == (f"{tmp_path}/glue", f"{tmp_path}/glue:/data:ro")


def test_own_files_that_the_work_does_not_use_are_not_missed(recipe: Path) -> None:
    files = "{train_file: no.csv, validation_file: none.csv, test_file: test.csv}"
    Path("test.csv").touch()

    def missing(*overrides: str) -> list[str]:
        loaded = load_recipe(recipe, [f"config.data={files}", "config.model={name_or_path: o/m}", *overrides])
        return [str(problem) for problem in missing_paths(make_plan(loaded, "local", LOCAL), loaded)]

    assert [problem.split(": there is no ")[1].split()[0] for problem in missing()] == ["no.csv", "none.csv"]
    assert missing("config.do_train=false", "config.do_eval=false") == []


def test_gpu_hours_are_those_of_all_trials_at_their_time_limit(recipe: Path) -> None:
    made = plan(recipe, "resources={nodes: 2, gpus_per_node: 4, cpus: 4, time: 03:00:00}")
    assert made.stages[0].gpu_hours == 4 * 2 * 4 * 3


def test_ten_thousand_trials_need_little_memory(recipe: Path) -> None:
    tracemalloc.start()
    made = plan(recipe, "grid.seed={{ range(5000) }}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(made.trials) == 10_000
    assert peak < 100e6


def test_what_a_stage_makes_is_not_missed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.txt").touch()
    text = """
name: two
stages:
  shards:
    task: preprocess
    config: {data: {files: [some.txt]}, tokenizer: {train_vocab_size: 100}, output: shards}
  train:
    task: pretrain
    needs: [shards]
    config: {dataset: {path: shards}, trainer: {max_steps: 1}}
"""

    def missing(text: str) -> list[str]:
        Path("two.yaml").write_text(text)
        loaded = load_recipe("two.yaml")
        return [str(problem) for problem in missing_paths(make_plan(loaded, "local", LOCAL), loaded)]

    assert missing(text) == []
    (problem,) = missing(text.replace("path: shards", "path: elsewhere"))
    assert "stages.train.config.dataset.path: there is no elsewhere" in problem
    (problem,) = missing(
        text.replace("output: shards", "output: no/where/shards").replace("path: s", "path: no/where/s")
    )
    assert problem.startswith(
        "two.yaml:6: stages.shards.config.output: there is no directory no/where, in which shards"
    )
    (problem,) = missing(text.replace("[some.txt]", "[some.txt, '*.parquet']"))
    assert "stages.shards.config.data.files[1]: there is no file *.parquet" in problem
