"""What a plan takes of the disk: for each trial, for all that run at once, and for good."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from neobert.config.keep import bytes_text
from slurm.cluster import Profile
from slurm.disk import estimate as module
from slurm.disk.estimate import Estimate, estimate
from slurm.disk.models import Models
from slurm.disk.report import notes, warning
from slurm.disk.usage import Usage, usage_of
from slurm.plan import make_plan
from slurm.recipe import load_recipe
from tests.slurm.disk.test_weights import BERT, write_model

Write = Callable[[str, str], Path]
SBATCH = Profile(backend="sbatch")
HEAD = (4 + 1) * (4 + 3)  # of a model with a hidden size of 4
MODEL = 4 * (60 + HEAD)
WHOLE = 3 * MODEL

GLUE = """
name: sweep
task: glue
config: {task_name: rte, data: {generated: 10}, model: {name_or_path: ./bert}}
"""
PRETRAIN = """
name: both
stages:
  text: {task: preprocess, config: {data: {generated: 9}, tokenizer: {train_vocab_size: 100}, output: "{{ run }}/text"}}
  pretrain:
    task: pretrain
    needs: [text]
    config:
      dataset: {path: "{{ run }}/text"}
      model: {hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 12}
      trainer: {max_steps: 30, save_steps: 10}
  glue:
    task: glue
    needs: [pretrain]
    config: {task_name: rte, data: {generated: 9}, model: {name_or_path: "{{ stages.pretrain.dir }}/model"}}
  export: {task: export, needs: [pretrain], config: {source: "{{ stages.pretrain.dir }}", dtype: bfloat16}}
"""
ENCODER = 100 * 8 + 2 * (4 * 64 + 3 * 8 * 8) + 5 * 8
DECODER = 100 * 8 + 100
OWN = ENCODER + DECODER


def made(write: Write, text: str, *overrides: str, profile: Profile = SBATCH) -> Estimate:
    write_model(Path("bert"), BERT)
    plan = make_plan(load_recipe(write("r.yaml", text), overrides), "x", profile)
    return estimate(plan, {stage.name: list(stage.trials) for stage in plan.stages}, Path("runs"))


def of_first(write: Write, text: str, *overrides: str, stage: int = 0) -> Usage:
    write_model(Path("bert"), BERT)
    plan = make_plan(load_recipe(write("r.yaml", text), overrides), "x", SBATCH)
    return usage_of(plan.stages[stage].trials[0].id, Models(plan))


@pytest.mark.parametrize(
    ("settings", "peak", "stays"),
    [
        ("{}", 3 * WHOLE, MODEL),  # three epochs: two checkpoints stay while the third is written
        ("{num_train_epochs: 1}", WHOLE, MODEL),
        ("{num_train_epochs: 10}", 3 * WHOLE, MODEL),
        ("{save_total_limit: 1}", 3 * WHOLE, MODEL),  # the best and the newest stay in any case
        ("{save_total_limit: 4, num_train_epochs: 9}", 5 * WHOLE, MODEL),
        ("{eval_strategy: steps, eval_steps: 10}", 3 * WHOLE, MODEL),
        ("{eval_strategy: steps, eval_steps: 10, max_steps: 15}", 2 * WHOLE, MODEL),
        ("{keep: last}", 3 * WHOLE, WHOLE + MODEL),
        ("{keep: last, num_train_epochs: 1}", WHOLE, WHOLE),
        ("{keep: all}", 3 * WHOLE, 2 * WHOLE),
    ],
)
def test_a_fine_tuning_takes_the_checkpoints_that_are_there_at_once(
    write: Write, work: Path, settings: str, peak: int, stays: int
) -> None:
    assert of_first(write, GLUE, f"config.trainer={settings}") == Usage(peak, stays)


@pytest.mark.parametrize(
    ("settings", "of_model", "of_whole"),
    [
        ("{zero_stage: 0}", 4, 16), ("{zero_stage: 1}", 4, 20), ("{zero_stage: 2}", 4, 20), ("{zero_stage: 3}", 4, 16),
    ],
)  # fmt: skip
def test_deepspeed_writes_more(write: Write, work: Path, settings: str, of_model: int, of_whole: int) -> None:
    one = ["config.trainer={num_train_epochs: 1}", f"config.deepspeed={settings}"]
    found = of_first(write, GLUE, *one)
    assert found == Usage(of_whole * (60 + HEAD), of_model * (60 + HEAD))
    half = of_first(write, GLUE, *one, "config.trainer={num_train_epochs: 1, mixed_precision: bf16}")
    assert half == Usage((14 if "3" in settings else 16) * (60 + HEAD), 2 * (60 + HEAD))


def test_without_training_there_are_no_checkpoints(write: Write, work: Path) -> None:
    assert of_first(write, GLUE, "config.do_train=false") == Usage(0, 0)


@pytest.mark.parametrize(
    ("settings", "peak", "stays"),
    [
        ("{}", 3 * 12 * OWN, 16 * OWN),
        ("{keep: best}", 3 * 12 * OWN, 4 * OWN),
        ("{keep: all}", 3 * 12 * OWN, (2 * 12 + 4) * OWN),
        ("{save_total_limit: 3}", (3 * 12 + 4) * OWN, 16 * OWN),  # at the end: three, and the model beside them
        ("{max_steps: null, max_tokens: 5000}", 3 * 12 * OWN, 16 * OWN),
    ],
)
def test_a_pretraining_keeps_a_state_beside_its_model(
    write: Write, work: Path, settings: str, peak: int, stays: int
) -> None:
    changes = [f"stages.pretrain.config.trainer.{pair}" for pair in settings.strip("{}").replace(": ", "=").split(", ")]
    assert of_first(write, PRETRAIN, *filter(lambda text: "=" in text, changes), stage=1) == Usage(peak, stays)


def test_muon_has_one_moment_for_the_matrices(write: Write, work: Path) -> None:
    matrices = 2 * (4 * 64 + 3 * 8 * 8)
    found = of_first(write, PRETRAIN, "stages.pretrain.config.optimizer={name: muon}", stage=1)
    assert found.stays == 16 * OWN - 4 * matrices


def test_models_that_earlier_stages_make_are_known_before_they_are_made(write: Write, work: Path) -> None:
    head = (8 + 1) * (8 + 3)
    assert of_first(write, PRETRAIN, stage=2) == Usage(3 * 12 * (ENCODER + head), 4 * (ENCODER + head))
    assert of_first(write, PRETRAIN, stage=3) == Usage(2 * OWN, 2 * OWN)


def test_what_is_not_known_is_said_and_left_out_of_the_sum(write: Write, work: Path) -> None:
    found = made(write, GLUE, "config.model.name_or_path=org/name")
    assert found.peak == 0
    (note,) = notes(found)
    assert note.startswith("disk for glue is not known: org/name is not on this machine (`recipe fetch` brings")
    both = notes(made(write, PRETRAIN))
    assert both[0] == "disk for text is not known: shards of English text take about half of its bytes"
    assert both[1].startswith("disk for the others: at most ")


@pytest.mark.parametrize(("parallel", "peak"), [("null", 4 * 3 * WHOLE), ("1", 3 * WHOLE + 3 * MODEL),
                                                ("3", 9 * WHOLE + MODEL)])  # fmt: skip
def test_trials_that_run_one_after_another_take_less_at_once(
    write: Write, work: Path, parallel: str, peak: int
) -> None:
    found = made(write, GLUE, "grid={seed: [1, 2, 3, 4]}", f"array={{parallel: {parallel}}}")
    assert (found.peak, found.stays) == (peak, 4 * MODEL)


def test_on_this_machine_no_more_run_at_once_than_it_has_processors_for(
    write: Write, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(4)))
    local = Profile(backend="local")
    found = made(write, GLUE, "grid={seed: [1, 2, 3, 4]}", "resources={cpus: 2}", profile=local)
    assert found.peak == 2 * 3 * WHOLE + 2 * MODEL


def test_stages_that_wait_for_each_other_do_not_add_up(write: Write, work: Path) -> None:
    found = made(write, PRETRAIN)
    text, pretrain, glue, export = found.stages
    assert text.unknown
    above = [each.peak - each.stays for each in (pretrain, glue, export)]
    assert found.peak == pretrain.stays + glue.stays + export.stays + max(above[0], above[1] + above[2])


def test_trials_that_are_done_take_no_more(write: Write, work: Path) -> None:
    write_model(Path("bert"), BERT)
    plan = make_plan(load_recipe(write("r.yaml", GLUE), ["grid={seed: [1, 2]}"]), "x", SBATCH)
    trials = plan.stages[0].trials
    assert estimate(plan, {"glue": list(trials[:1])}, work).stays == MODEL
    assert estimate(plan, {"glue": []}, work).stages == ()


class Disk(NamedTuple):
    free: int


def test_where_it_does_not_fit_plan_and_submit_say_so(
    write: Write, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Disk(3 * WHOLE - 1))
    told = warning(made(write, GLUE))
    assert told is not None
    assert told.startswith(f"this may fill the disk: checkpoints take at most {bytes_text(3 * WHOLE)} at once, and ")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Disk(3 * WHOLE))
    assert warning(made(write, GLUE)) is None


SIZE = "{allow_random_weights: true, hidden_size: 131072, num_attention_heads: 1024, num_hidden_layers: 9999}"
HUGE = ["--set", f"config.model={SIZE}"]


def test_the_commands_show_it(
    run_recipe: Callable[..., subprocess.CompletedProcess[str]], recipe: Path, stand_in: Path, work: Path
) -> None:
    plan = run_recipe("plan", recipe).stdout
    assert "each at most" in plan
    assert f"are free in {work}" in plan
    assert "warning" not in plan
    assert "warning: this may fill the disk" in run_recipe("plan", recipe, *HUGE).stdout
    done = run_recipe("submit", recipe, "--cluster", stand_in, *HUGE)
    assert "warning: this may fill the disk" in done.stderr
    assert done.returncode == 0
    run_recipe("cancel")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9949, "9.9 kB"), (9950, "10 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (4_921_000_000, "4.9 GB"), (3 * 10**15, "3.0 PB"), (5 * 10**18, "5000 PB")],
)  # fmt: skip
def test_bytes_are_told_in_units_that_people_read(count: int, text: str) -> None:
    assert bytes_text(count) == text
