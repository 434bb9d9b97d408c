"""Every mistake in settings is told at once, with its place and what to do."""

from __future__ import annotations

import pickle

import pytest

from neobert.config import ConfigError, GlueConfig, nearest, parse_yaml, validate
from neobert.config.describe import describe
from neobert.config.glue import RUN_GLUE


def problems(text: str) -> list[str]:
    source = parse_yaml(text, "f.yaml")
    with pytest.raises(ConfigError) as caught:
        validate(GlueConfig, source.data, source.where)
    return [str(problem) for problem in caught.value.problems]


def test_all_problems_are_told_with_line_key_and_nearest_known_key() -> None:
    told = problems(
        "task_name: rte\ndata:\n  generated: 10\n  max_lenght: 3\noptimizer: {lr: '1e-5'}\nsead: 1\n"
        "model: {allow_random_weights: true}\n"
    )
    assert told == [
        "f.yaml:4: data.max_lenght: unknown key; did you mean 'max_length'?",
        "f.yaml:5: optimizer.lr: expected number, found '1e-5' (str)",
        "f.yaml:6: sead: unknown key; did you mean 'seed'?",
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("learning_rate", "did you mean 'optimizer.lr'?"),
        ("max_seq_length", "did you mean 'data.max_length'?"),
        ("model_name_or_path", "did you mean 'model.name_or_path'?"),
        ("train_file", "did you mean 'data.train_file'?"),
        ("num_train_epochs", "did you mean 'trainer.num_train_epochs'?"),
        ("num_training_epochs", "did you mean 'trainer.num_train_epochs'?"),
        ("evaluation_strategy", "did you mean 'trainer.eval_strategy'?"),
        ("output_dir", "did you mean '--output-dir'?"),
        ("sead", "did you mean 'seed'?"),
        ("something", "known here: data, deepspeed, do_eval, do_predict, do_train, model, optimizer, scheduler, seed, "
                      "task_name, trainer"),
    ],
)  # fmt: skip
def test_a_key_of_another_section_or_of_run_glue_is_told_its_place(key: str, meant: str) -> None:
    settings = f"model: {{allow_random_weights: true}}\ntask_name: rte\ndata: {{generated: 9}}\n{key}: 1"
    assert problems(settings) == [f"f.yaml:4: {key}: unknown key; {meant}"]


def test_what_run_glue_calls_otherwise_is_here() -> None:
    described = describe(GlueConfig)
    for key in set(RUN_GLUE.values()) - {"--output-dir"}:
        assert f"  {key}: " in described, key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {allow_random_weights: true}\ntask_name: rtee\ndata: {generated: 9}",
            "task_name: expected 'cola', .* found 'rtee'; did you mean 'rte'",
        ),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: 3",
            "data: expected a mapping of settings, found 3",
        ),
        ("model: {allow_random_weights: true}\ntask_name: rte", "data: is required"),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: {generated: 9}\nseed: true",
            r"seed: expected integer, found True \(bool\)",
        ),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: {generated: 9}\nseed: 1.5",
            r"seed: expected integer, found 1\.5",
        ),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: {generated: 9}\noptimizer: {lr: 0}",
            r"optimizer\.lr: expected greater than 0, found 0",
        ),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: {generated: 9}\noptimizer: {lr: .nan}",
            r"optimizer\.lr: expected .*found nan",
        ),
        (
            "model: {allow_random_weights: true}\ntask_name: rte\ndata: {generated: 9, dir: x}",
            "data: expected exactly one of .* found dir and generated",
        ),
        ("model: {allow_random_weights: true}\ndata: {generated: 9}", "task_name is required"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(text: str, message: str) -> None:
    import re

    told = problems(text)
    assert len(told) == 1
    assert re.search(message, told[0]), told[0]


def test_a_settings_error_crosses_processes() -> None:
    error = ConfigError.at(("a", 0), "is wrong", "f:1")
    assert str(pickle.loads(pickle.dumps(error))) == "f:1: a[0]: is wrong"


def test_nearest_lists_what_is_known_when_nothing_is_near() -> None:
    assert nearest("xyz", ["alpha", "beta"]) == "; known here: alpha, beta"
    assert nearest("alfa", ["alpha", "beta"]) == "; did you mean 'alpha'?"
