"""Which trials are stale, which may be queued, and what a submission says of those that may not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm.cluster import Profile
from slurm.done import done_trials
from slurm.inputs import check_needs, list_of, list_path, stage_needs
from slurm.plan import Plan, make_plan
from slurm.recipe import load_recipe
from slurm.rundir import RunDir
from slurm.state import State, run_state

PRETRAIN, EXPORT, GLUE, OTHER = (f"{letter * 12}" for letter in "abcd")
STAGES = {"pretrain": [PRETRAIN], "export": [EXPORT], "glue": [GLUE, OTHER]}
NEEDS = {"pretrain": [], "export": ["pretrain"], "glue": ["export"]}


class Pipeline:
    """A run of three stages, each of which needs the one before. `run_trial` does what a job script does."""

    def __init__(self, path: Path):
        self.run = RunDir(path / "runs/p/one")
        self.run.path.mkdir(parents=True)
        rows = [{"id": id, "stage": stage, "point": {}} for stage, ids in STAGES.items() for id in ids]
        self.run.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        stages = {name: {"task": "glue", "needs": needs} for name, needs in NEEDS.items()}
        self.run.recipe.write_text(json.dumps({"stages": stages}))

    def run_trial(self, id: str, needed: list[tuple[str, str]], score: float = 0.5, started: float = 1e9) -> None:
        files, text = self.run.trial(id), list_of(needed)
        files.path.mkdir(parents=True, exist_ok=True)
        start: dict[str, Any] = {"attempt": 1, "job": "1", "start": started}
        if needed:
            path = list_path(self.run, text)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            results = b"".join(self.run.trial(id).result.read_bytes() for id, _ in needed)
            start |= {"needs": path.stem, "inputs": hashlib.sha256(results).hexdigest()[:16]}
        files.attempts.write_text(
            json.dumps(start) + "\n" + json.dumps({"attempt": 1, "exit_code": 0, "end": 2}) + "\n"
        )
        self.result(id, score)

    def result(self, id: str, score: float) -> None:
        files = self.run.trial(id)
        files.path.mkdir(parents=True, exist_ok=True)
        files.result.write_text(json.dumps({"metric": "m", "score": score, "metrics": {}}))

    def run_all(self) -> None:
        self.run_trial(PRETRAIN, [])
        self.run_trial(EXPORT, [(PRETRAIN, "pretrain")])
        for id in STAGES["glue"]:
            self.run_trial(id, [(EXPORT, "export")])

    def forget_inputs(self, id: str, started: float) -> None:
        """As a version left it that noted none."""
        lines = [{"attempt": 1, "job": "1", "start": started}, {"attempt": 1, "exit_code": 0, "end": started + 1}]
        self.run.trial(id).attempts.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @property
    def states(self) -> list[State]:
        return [trial.state for trial in run_state(self.run).trials]

    def detail(self, id: str) -> str:
        return run_state(self.run).find(id).detail


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    one = Pipeline(tmp_path)
    one.run_all()
    return one


DONE, STALE, UNKNOWN = State.DONE, State.STALE, State.UNKNOWN


def test_what_was_made_from_the_results_that_are_there_is_done(pipeline: Pipeline) -> None:
    assert pipeline.states == [DONE, DONE, DONE, DONE]
    assert done_trials(pipeline.run) == {PRETRAIN, EXPORT, GLUE, OTHER}


def test_what_was_made_from_another_result_is_stale_and_so_is_all_that_comes_after_it(pipeline: Pipeline) -> None:
    pipeline.result(PRETRAIN, 0.6)
    assert pipeline.states == [DONE, STALE, STALE, STALE]
    assert done_trials(pipeline.run) == {PRETRAIN}
    assert pipeline.detail(EXPORT) == "made from other results of pretrain than there are now"
    assert pipeline.detail(GLUE) == f"needs export, whose trial {EXPORT} is stale"


def test_a_stale_result_is_neither_a_score_nor_silent(pipeline: Pipeline) -> None:
    pipeline.result(EXPORT, 0.7)
    assert [bool(trial.result) for trial in run_state(pipeline.run).trials] == [True, True, False, False]


def test_a_result_that_is_gone_makes_stale_what_was_made_from_it(pipeline: Pipeline) -> None:
    pipeline.run.trial(PRETRAIN).result.unlink()
    assert pipeline.states == [UNKNOWN, STALE, STALE, STALE]
    assert pipeline.detail(EXPORT) == f"needs pretrain, whose trial {PRETRAIN} has no result"
    assert "its result is gone" in pipeline.detail(PRETRAIN)


def test_a_result_that_is_copied_stays_what_it_is(pipeline: Pipeline) -> None:
    """The run was moved, and its files are newer than they were."""
    for id in (PRETRAIN, EXPORT, GLUE, OTHER):
        os.utime(pipeline.run.trial(id).result, (2e9, 2e9))
    assert pipeline.states == [DONE, DONE, DONE, DONE]


@pytest.mark.parametrize(("later", "state"), [(61, STALE), (59, DONE), (-1000, DONE)])
def test_where_no_inputs_were_noted_time_tells_as_far_as_clocks_agree(
    pipeline: Pipeline, later: float, state: State
) -> None:
    pipeline.forget_inputs(EXPORT, started=1e9)
    os.utime(pipeline.run.trial(PRETRAIN).result, (1e9 + later, 1e9 + later))
    assert pipeline.states[:2] == [DONE, state]


def test_where_no_inputs_were_noted_and_they_are_not_there_it_is_stale(pipeline: Pipeline) -> None:
    """The pretraining was cancelled, and `retry --trial` of that version started the rest all the same."""
    for id in (EXPORT, GLUE, OTHER):
        pipeline.forget_inputs(id, started=3e9)
    pipeline.run.trial(PRETRAIN).result.unlink()
    assert pipeline.states[1:] == [STALE, STALE, STALE]


def test_a_grid_that_has_grown_makes_nothing_stale(pipeline: Pipeline) -> None:
    with pipeline.run.manifest.open("a") as manifest:
        manifest.write(json.dumps({"id": "e" * 12, "stage": "pretrain", "point": {}}) + "\n")
    assert pipeline.states == [DONE, DONE, DONE, DONE, State.NEW]


def test_without_the_list_that_was_noted_time_tells(pipeline: Pipeline) -> None:
    for path in pipeline.run.path.glob("needs/*.txt"):
        path.unlink()
    os.utime(pipeline.run.trial(PRETRAIN).result, (1, 1))
    os.utime(pipeline.run.trial(EXPORT).result, (1, 1))
    assert pipeline.states == [DONE, DONE, DONE, DONE]


def test_a_recipe_that_cannot_be_read_hides_no_trial(pipeline: Pipeline) -> None:
    pipeline.run.recipe.write_text("{")
    state = run_state(pipeline.run)
    assert state.counts == {DONE: 4}
    assert "no trial is known to be stale" in state.notes[0]
    with pytest.raises(ConfigError, match="is not valid YAML"):
        done_trials(pipeline.run)


def test_stages_come_after_those_that_they_need(pipeline: Pipeline) -> None:
    stages = json.loads(pipeline.run.recipe.read_text())["stages"]
    pipeline.run.recipe.write_text(json.dumps({"stages": dict(reversed(stages.items()))}))
    assert list(stage_needs(pipeline.run, [{"stage": "a"}, {"stage": "b"}])) == ["pretrain", "export", "glue"]
    pipeline.result(PRETRAIN, 0.6)
    assert pipeline.states == [DONE, STALE, STALE, STALE]


def test_a_blocked_trial_names_what_it_waits_for_and_says_when_that_is_there(pipeline: Pipeline) -> None:
    files = pipeline.run.trial(GLUE)
    files.result.unlink()
    files.attempts.unlink()
    failure = {"attempt": 0, "exit_code": 1, "signal": None, "kind": "needs", "job": "7", "node": "n1",
               "reason": f"needs export, whose trial {EXPORT} has no result"}  # fmt: skip
    files.failure.write_text(json.dumps(failure))
    assert pipeline.states == [DONE, DONE, State.BLOCKED, DONE]
    assert "has one now: `recipe submit` queues it" in pipeline.detail(GLUE)
    pipeline.run.trial(EXPORT).result.unlink()
    assert pipeline.detail(GLUE) == f"needs export, whose trial {EXPORT} has no result"


def test_a_blocked_trial_names_what_it_lacks_now_and_not_what_is_there_by_now(pipeline: Pipeline) -> None:
    pipeline.run.trial(GLUE).result.unlink()
    failure = {"attempt": 0, "exit_code": 1, "kind": "needs", "reason": "needs text, whose trial 0 has no result"}
    pipeline.run.trial(GLUE).failure.write_text(json.dumps(failure))
    pipeline.run.trial(EXPORT).result.unlink()
    assert pipeline.detail(GLUE) == f"needs export, whose trial {EXPORT} has no result"


# ------------------------------------------------------------------------------------------ what may be queued together


@pytest.fixture
def plan(write: Callable[[str, str], Path]) -> Plan:
    stage: dict[str, Any] = {
        "task": "glue",
        "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
    }
    stages = {
        "first": stage | {"grid": {"seed": [1, 2]}},
        "second": stage | {"needs": ["first"], "grid": {"seed": [3]}},
        "third": stage | {"needs": ["second"], "grid": {"seed": [4, 5]}},
    }
    recipe = write("three.yaml", json.dumps({"name": "three", "stages": stages}))
    return make_plan(load_recipe(recipe), "here", Profile(backend="local"))


def check(plan: Plan, work: Path, todo: list[str], there: list[str]) -> None:
    """`todo` and `there` name trials by stage and place, as `first-0`."""
    ids = {f"{stage.name}-{n}": trial for stage in plan.stages for n, trial in enumerate(stage.trials)}
    chosen = {id(ids[name]) for name in todo}
    trials = {stage.name: [trial for trial in stage.trials if id(trial) in chosen] for stage in plan.stages}
    check_needs(RunDir(work / "one"), plan, trials, {ids[name].id for name in there})


def test_trials_may_be_queued_with_or_after_all_that_they_need(plan: Plan, work: Path) -> None:
    check(plan, work, ["first-0", "second-0", "third-0"], ["first-1"])
    check(plan, work, ["third-1"], ["second-0"])
    check(plan, work, ["first-0"], [])


def test_a_trial_whose_needs_are_missing_is_refused_with_all_that_has_to_run(plan: Plan, work: Path) -> None:
    first, second, third = (stage.trials for stage in plan.stages)
    with pytest.raises(ConfigError) as caught:
        check(plan, work, ["third-1"], ["first-1"])
    (problem,) = caught.value.problems
    text = str(problem)
    assert f"needs stage second, whose trial {second[0].id} has no result (and 1 more)" in text
    assert f"`recipe retry one --trial {third[1].id} --trial {second[0].id} --trial {first[0].id}`" in text
    assert "`recipe retry one` queues all that is left" in text


def test_a_result_that_is_stale_is_told_from_one_that_is_missing(plan: Plan, work: Path) -> None:
    stale = RunDir(work / "one").trial(plan.stages[0].trials[0].id)
    stale.path.mkdir(parents=True)
    stale.result.write_text("{}")
    with pytest.raises(ConfigError, match=r"needs stage first, whose trial \w+ is stale"):
        check(plan, work, ["second-0"], ["first-1"])
