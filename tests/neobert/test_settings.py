"""Settings from files, arguments and manifests mean the same, and mistakes are located."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from neobert.config import ConfigError, GlueConfig, validate
from neobert.settings import from_command_line, from_manifest

FILE = """\
task_name: rte
data:
  generated: 100
optimizer:
  lr: 1e-5
model: {allow_random_weights: true}
"""
NEW = {"allow_random_weights": True}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "glue.yaml"
    path.write_text(FILE)
    return path


def test_arguments_are_put_over_the_file_with_yaml_types(file: Path) -> None:
    overrides = ["optimizer.lr=3e-5", "seed=7", "trainer.gradient_clipping=null", "optimizer.betas=[0.8, 0.9]"]
    config = from_command_line("glue", file, overrides).config
    assert isinstance(config, GlueConfig)
    assert (config.task_name, config.optimizer.lr, config.seed) == ("rte", 3e-5, 7)
    assert (config.trainer.gradient_clipping, config.optimizer.betas) == (None, (0.8, 0.9))


def test_arguments_alone_are_enough() -> None:
    config = from_command_line("glue", None, ["task_name=cola", "data.generated=50", "model.name_or_path=m"]).config
    assert config == GlueConfig.model_validate(
        {"task_name": "cola", "data": {"generated": 50}, "model": {"name_or_path": "m"}}
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lrr=1"], "command line: optimizer.lrr: unknown key; did you mean 'lr'?"),
        (["seed=many"], "command line: seed: expected integer, found 'many' (str)"),
        (["lr"], "'lr': expected key=value, as in optimizer.lr=3e-5"),
        (["=3"], "'=3': expected key=value, as in optimizer.lr=3e-5"),
        (["optimizer.=3"], "'optimizer.=3': expected key=value, as in optimizer.lr=3e-5"),
        (["seed=1", "seed.x=3"], "seed: is 1, so nothing can be set inside it"),
        (["data=[1"], "is not valid YAML"),
    ],
)
def test_a_mistake_on_the_command_line_is_said_to_be_there(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_command_line("glue", file, overrides)
    assert message in str(caught.value)


def test_a_mistake_in_the_file_is_named_with_its_line(file: Path) -> None:
    file.write_text(FILE.replace("lr: 1e-5", "lr: -1"))
    with pytest.raises(ConfigError, match=rf"{file}:5: optimizer.lr: expected greater than 0"):
        from_command_line("glue", file, ["seed=1"])


def test_a_file_must_hold_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"list.yaml:1: expected a mapping of settings"):
        from_command_line("glue", tmp_path / "list.yaml", [])
    (tmp_path / "empty.yaml").touch()
    config = from_command_line(
        "glue", tmp_path / "empty.yaml", ["task_name=rte", "data.generated=5", "model.name_or_path=m"]
    ).config
    assert config.seed == 42  # type: ignore[attr-defined]


def test_a_trial_is_a_line_of_the_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    config = {"task_name": "rte", "data": {"generated": 9}, "model": NEW}
    trials = [{"id": f"t{n}", "task": "glue", "config": {**config, "seed": n}, "more": 1} for n in range(3)]
    manifest.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    settings = from_manifest(manifest, 2)
    assert (settings.task, settings.config.seed) == ("glue", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "index", "message"),
    [
        ('{"task": "glue", "config": {}}\n', 1, r"manifest.jsonl: has 1 trials, so there is no number 1"),
        ('{"task": "glue", "config": {}}\n', -1, "there is no number -1"),
        ("nonsense\n", 0, r"manifest.jsonl:1: is no trial with task and config"),
        ('{"task": "glu", "config": {}}\n', 0, r"manifest.jsonl:1: task: 'glu' is not known; did you mean 'glue'"),
        (
            '{"task": ["glue"], "config": {}}\n',
            0,
            r"manifest.jsonl:1: task: \['glue'\] is not known; did you mean 'glue'",
        ),
        ('{"task": "glue", "config": ' + "[" * 100_000, 0, r"manifest.jsonl:1: is no trial with task and config"),
        ('{"task": "glue", "config": {"sed": 1}}\n', 0, r"manifest.jsonl:1: sed: unknown key; did you mean 'seed'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_named(tmp_path: Path, text: str, index: int, message: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        from_manifest(tmp_path / "manifest.jsonl", index)


@pytest.mark.parametrize("model", [NEW, {"name_or_path": "bert-base-uncased"}])
def test_settings_that_were_written_out_can_be_read_again(model: dict[str, object]) -> None:
    config = GlueConfig.model_validate({"task_name": "rte", "model": model, "data": {"dir": "glue"}})
    again = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert validate(GlueConfig, again) == config


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"optimizer": {"betas": [0.9, 1.0]}}, r"optimizer.betas\[1\]: expected less than 1, found 1.0"),
        ({"data": {"generated": 5, "max_length": 2}}, r"data.max_length: expected greater than or equal to 8, found 2"),
        ({"data": {"labels": ["1", "0", "0"]}}, r"data.labels: expected different names without blanks around them"),
        ({"data": {"labels": ["1", " 0"]}}, r"data.labels: expected different names without blanks around them"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_the_settings(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(GlueConfig, {"task_name": "rte", "data": {"generated": 5}} | section)


@pytest.mark.parametrize(
    ("task", "trainer", "message"),
    [
        ("rte", {"metric_for_best_model": "pearson"}, "'pearson' is not measured on rte; did you mean"),
        ("mnli", {"metric_for_best_model": "acuracy_mm"}, "did you mean 'accuracy_mm'"),
        ("rte", {"metric_for_best_model": "loss", "greater_is_better": True}, "must be false for loss"),
        ("rte", {"greater_is_better": False}, "must be true for score"),
    ],
)
def test_a_metric_that_the_task_has_not_is_refused_with_the_settings(
    task: str, trainer: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(GlueConfig, {"task_name": task, "data": {"generated": 5}, "model": NEW, "trainer": trainer})


def test_a_line_of_a_manifest_may_hold_characters_that_end_lines_elsewhere(tmp_path: Path) -> None:
    manifest = tmp_path / "trials.jsonl"
    odd = "a\u2028b\u0085c"
    trial = {"task": "glue", "config": {"task_name": "rte", "data": {"generated": 5}, "model": {"name_or_path": odd}}}
    manifest.write_text((json.dumps(trial, ensure_ascii=False) + "\n") * 2, encoding="utf-8")
    assert from_manifest(manifest, 1).config.model.name_or_path == odd  # type: ignore[attr-defined]
