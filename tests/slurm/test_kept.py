"""A stage that needs a checkpoint which an earlier one would not keep is refused before anything is queued."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError, Problem
from slurm.cluster import Profile
from slurm.kept import lost_checkpoints
from slurm.plan import make_plan
from slurm.recipe import bundled, load_recipe
from slurm.session import open_session

Write = Callable[[str, str], Path]

STAGES = """
name: two
stages:
  first: {task: glue, config: {task_name: rte, data: {generated: 10}, model: {allow_random_weights: true}}}
  text:
    task: preprocess
    config: {data: {generated: 10}, tokenizer: {train_vocab_size: 100}, output: "{{ run }}/text"}
  pretrain: {task: pretrain, needs: [text], config: {dataset: {path: "{{ run }}/text"}, trainer: {max_steps: 30}}}
  second:
    task: glue
    needs: [first, pretrain]
    config: {task_name: rte, data: {generated: 10}, model: {name_or_path: "{{ stages.pretrain.dir }}"}}
  more:
    task: pretrain
    needs: [pretrain]
    config: {dataset: {path: "{{ run }}/text"}, trainer: {max_steps: 60}}
"""
FIRST, PRETRAIN = "{{ stages.first.dir }}", "{{ stages.pretrain.dir }}"


def problems(write: Write, *overrides: str) -> list[Problem]:
    recipe = load_recipe(write("two.yaml", STAGES), overrides)
    return lost_checkpoints(make_plan(recipe, "local", Profile(backend="local")), recipe)


def begins_from(directory: str, which: str = "null") -> str:
    return f"stages.second.config.model={{pretrained_checkpoint_dir: '{directory}', pretrained_checkpoint: {which}}}"


def continues(directory: str) -> str:
    return f"stages.more.config.trainer.resume_from_checkpoint={directory}"


def keep(stage: str, what: str) -> str:
    return f"stages.{stage}.config.trainer={{keep: {what}, max_steps: 30}}"


@pytest.mark.parametrize(
    "overrides",
    [
        [begins_from(FIRST)],
        [begins_from(PRETRAIN)],
        [begins_from(PRETRAIN, "latest")],
        [begins_from(PRETRAIN, "30")],
        [begins_from(PRETRAIN), keep("pretrain", "best")],
        [begins_from(FIRST, "latest"), keep("first", "last")],
        [begins_from(FIRST, "20"), keep("first", "all")],
        [continues(PRETRAIN)],
        [continues(PRETRAIN + "/checkpoints")],
        [continues(PRETRAIN + "/checkpoints/checkpoint-30")],
    ],
)
def test_what_is_kept_can_be_named(write: Write, overrides: list[str]) -> None:
    assert problems(write, *overrides) == []


@pytest.mark.parametrize(
    ("overrides", "needs", "keeps"),
    [
        ([begins_from(FIRST, "latest")], "the last checkpoint of stage 'first'", "first.config.trainer.keep: last"),
        ([begins_from(FIRST, "20")], "the checkpoint of step 20 of stage 'first'", "first.config.trainer.keep: all"),
        ([begins_from(PRETRAIN, "20")], "the checkpoint of step 20", "pretrain.config.trainer.keep: all"),
        ([begins_from(FIRST + "/checkpoints/checkpoint-20")], "the checkpoint of step 20", "first.config.trainer.keep"),
        ([continues(PRETRAIN), keep("pretrain", "best")], "the last checkpoint with its optimizer of", "keep: last"),
    ],
)
def test_what_is_not_kept_is_refused_with_what_to_do(
    write: Write, overrides: list[str], needs: str, keeps: str
) -> None:
    (problem,) = problems(write, *overrides)
    assert needs in problem.message
    assert keeps in problem.message
    assert problem.where == f"--set {overrides[0]}"


def test_a_submission_is_refused_before_a_file_is_written(write: Write, work: Path) -> None:
    file = write("two.yaml", STAGES)
    with pytest.raises(ConfigError, match=r"needs the last checkpoint of stage 'first', which is not kept"):
        open_session(str(file), (begins_from(FIRST, "latest"),)).submit()
    assert not (work / "runs").exists()


@pytest.mark.parametrize("name", ["demo", "glue/two-round", "glue/neobert", "glue/modernbert", "pretrain/neobert-base"])
def test_recipes_that_come_along_name_what_is_kept(name: str) -> None:
    recipe = load_recipe(bundled(".") / f"{name}.yaml")
    assert lost_checkpoints(make_plan(recipe, "local", Profile(backend="local")), recipe) == []


def test_what_is_kept_makes_no_other_trial_of_it(recipe: Path) -> None:
    def ids(*overrides: str) -> list[str]:
        made = make_plan(load_recipe(recipe, overrides), "local", Profile(backend="local"))
        assert all(('"keep":"all"' in trial.config) == bool(overrides) for _, trial in made.trials)
        return [trial.id for _, trial in made.trials]

    assert ids() == ids("config.trainer={keep: all}")
    with pytest.raises(ConfigError, match="two trials are the same"):
        ids("grid.trainer.keep=[best, all]")
