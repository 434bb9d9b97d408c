"""What a user of `neobert pretrain` can do wrong: one message with place and remedy, and nothing of before is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.neobert.conftest import REPOSITORY
from tests.neobert.damage import flip_bit, forget_checksums
from tests.neobert.training.pretraining import SETTINGS, Neobert, same, settings_file, write_shards, write_text

Told = Callable[..., str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    return write_shards(lambda *words: run(list(map(str, words))), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    directory = tmp_path_factory.mktemp("trained")
    file = settings_file(directory, shards, trainer={"max_steps": 10, "save_steps": 5})
    assert run(["pretrain", "--config", str(file), "--output-dir", str(directory)]) == 0
    return directory


@pytest.fixture
def told(neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Told:
    """Runs a pretraining that ends with a message, and returns the message."""

    def run(code: int = 2, shards: Path = shards, out: Path = tmp_path / "trial", **sections: Any) -> str:
        file = settings_file(tmp_path, shards, **sections)
        assert neobert("pretrain", "--config", file, "--output-dir", out) == code
        error = capfd.readouterr().err
        assert "Traceback" not in error
        (line,) = [line for line in error.splitlines() if line.startswith("neobert: ")]
        return line.removeprefix("neobert: ")

    return run


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files stands for it; small files still fit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_tokenizer_that_is_not_that_of_the_shards(told: Told, neobert: Neobert, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_shards(neobert, tmp_path / "other", tokenizer={"train_vocab_size": 200})
    message = told(tokenizer={"name_or_path": str(other / "tokenizer")})
    assert "dataset.path: " in message and "was tokenised with another tokenizer" in message


def test_a_tokenizer_that_is_not_that_of_the_model(
    told: Told, neobert: Neobert, shards: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_shards(neobert, tmp_path, tokenizer={"train_vocab_size": 200})
    model = dict.fromkeys(SETTINGS["model"]) | {"name_or_path": str(trained / "model")}
    message = told(shards=other, model=model)
    assert message.startswith(f"model.name_or_path: {trained / 'model'} goes with its own tokenizer (")
    assert f"), and {other / 'tokenizer'} (" in message
    own = settings_file(tmp_path, shards, model=model, trainer={"max_steps": 1})
    assert neobert("pretrain", "--config", own, "--output-dir", tmp_path / "own") == 0


def without_tokenizer_json(model: Path, directory: Path) -> Path:
    """A copy whose tokenizer is a plain list of tokens, as that of older BERTs."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    shutil.copytree(model, directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    (directory / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])) + "\n")
    return directory


@pytest.mark.parametrize("kind", [None, "BertTokenizer"])
def test_a_tokenizer_of_the_model_that_is_a_list_of_tokens(
    told: Told, neobert: Neobert, shards: Path, trained: Path, tmp_path: Path, kind: str | None
) -> None:
    """Alone, it tells the numbers of tokens; beside the name of a class, it is a tokenizer."""
    other = write_shards(neobert, tmp_path, tokenizer={"train_vocab_size": 200})
    model = without_tokenizer_json(trained / "model", tmp_path / "listed")
    if kind is not None:
        (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        (tmp_path / "own").mkdir()
        shards = write_shards(neobert, tmp_path / "own", tokenizer={"name_or_path": str(model)})
    section = dict.fromkeys(SETTINGS["model"]) | {"name_or_path": str(model)}
    message = told(shards=other, model=section)
    assert message.startswith(f"model.name_or_path: {model} goes with its own tokenizer (")
    own = settings_file(tmp_path, shards, model=section, trainer={"max_steps": 1})
    assert neobert("pretrain", "--config", own, "--output-dir", tmp_path / "right") == 0


def test_a_tokenizer_that_is_not_that_of_a_model_of_the_hub(
    neobert: Neobert, shards: Path, trained: Path, tmp_path: Path
) -> None:
    """Read from the cache of the hub's library, where a fetch has put it."""
    repository, commit = tmp_path / "home/hub/models--tiny--model", "a" * 40
    shutil.copytree(trained / "model", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    other = write_shards(neobert, tmp_path, tokenizer={"train_vocab_size": 200})
    model = dict.fromkeys(SETTINGS["model"]) | {"name_or_path": "tiny/model"}
    environ = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    file = settings_file(tmp_path, None, model=model, trainer={"max_steps": 1})
    program = (
        "import sys\nfrom neobert.cli import run\n"
        "every = [[f'dataset.path={data}', '--output-dir', data + '-trial'] for data in sys.argv[1:3]]\n"
        "print([run([*sys.argv[3:], *words]) for words in every])"
    )
    command = [sys.executable, "-c", program, str(other), str(shards), "pretrain", "--config", str(file)]
    done = subprocess.run(command, env=environ, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.endswith("[2, 0]\n"), done.stderr
    assert done.stderr.count("neobert: model.name_or_path: tiny/model goes with its own tokenizer (") == 1
    assert "Make shards with `neobert preprocess tokenizer.name_or_path=tiny/model`" in done.stderr


def test_a_tokenizer_with_more_entries_than_the_model(
    neobert: Neobert, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = write_shards(neobert, tmp_path, data={"generated": 500}, tokenizer={"train_vocab_size": 300})
    bare = Path(shutil.copytree(trained / "model", tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    model = dict.fromkeys(SETTINGS["model"]) | {"name_or_path": str(bare)}
    file = settings_file(tmp_path, other, model=model)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 2
    error = capfd.readouterr().err
    assert "neobert: tokenizer: has 300 entries, but the model only 201 embeddings\n" in error
    assert f"{bare} comes with no tokenizer, so nothing tells whether {other / 'tokenizer'} is the one" in error


def test_sequences_that_are_longer_than_the_model_takes(told: Told, tmp_path: Path) -> None:
    assert "dataset.max_seq_length 64 is more than the model can take: model.max_position_embeddings is 32" in told(
        dataset={"max_seq_length": 64}
    )
    assert "dataset.max_seq_length: is 16, but" in told(dataset={"max_seq_length": 16}, out=tmp_path / "another")


@pytest.mark.parametrize("unit", ["steps", "tokens"])
def test_a_warm_up_that_is_longer_than_the_training_is_as_slow_as_was_asked(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], unit: str
) -> None:
    trainer = {"max_steps": None, f"max_{unit}": 4 if unit == "steps" else 400, "logging_steps": 1}
    scheduler = {f"warmup_{unit}": 8 if unit == "steps" else 800}
    file = settings_file(tmp_path, shards, trainer=trainer, scheduler=scheduler, optimizer={"lr": 1.0})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    told = "warning: the warm-up is longer than the training: the learning rate comes to 0.5 of optimizer.lr, and not"
    assert told in capfd.readouterr().err
    if unit == "steps":
        rows = [json.loads(line) for line in (tmp_path / "trial/metrics.jsonl").read_text().splitlines()]
        assert [row["learning_rate"] for row in rows if "loss" in row] == [0.125, 0.25, 0.375, 0.5]


def test_a_decay_that_is_longer_than_the_training(told: Told) -> None:
    message = told(scheduler={"name": "wsd", "decay_steps": 31})
    assert "scheduler.decay_steps: is more than the 30 steps of the training. " in message


@pytest.mark.parametrize("weight", [None, 1.0])
def test_a_stream_without_text(told: Told, shards: Path, tmp_path: Path, weight: float | None) -> None:
    blank = tmp_path / "blank.txt"
    blank.write_text("\n \n" * 9)
    text = {"files": [str(blank)]} | ({"weight": weight} if weight else {})
    data = {"path": None, "streaming": True} | ({"sources": [text]} if weight else text)
    message = told(dataset=data, tokenizer={"name_or_path": str(shards / "tokenizer")})
    place = "dataset.sources[0].files" if weight else "dataset.files"
    assert message == (
        f"{place}: holds no text: all of ['{blank}'] was read, and no document in it has a token to train on"
    )


def test_evaluations_where_nothing_is_held_out(told: Told, neobert: Neobert, tmp_path: Path) -> None:
    whole = write_shards(neobert, tmp_path, validation_fraction=0.0)
    message = told(shards=whole, trainer={"eval_steps": 5})
    assert message.startswith("trainer.eval_steps: nothing is held out to evaluate on: make shards with `neobert prep")
    assert "name text in dataset.validation" in message


def test_an_unknown_backend_and_one_that_needs_a_gpu(told: Told) -> None:
    assert "model.attn_backend: expected" in told(model={"attn_backend": "spda"})
    assert told(model={"attn_backend": "xformers"}) == (
        "model.attn_backend: the attention backend xformers needs a GPU, and this is cpu; `auto` chooses one that works"
    )


def test_another_model_in_the_same_directory_or_from_its_checkpoint(told: Told, trained: Path) -> None:
    before = contents(trained)
    message = told(out=trained, model={"num_hidden_layers": 3}, trainer={"max_steps": 20})
    assert "this directory belongs to a trial with other settings" in message
    assert "model.num_hidden_layers is 2 there and 3 here" in message
    message = told(model={"num_hidden_layers": 3}, trainer={"resume_from_checkpoint": str(trained)})
    assert message.startswith("model: ")
    assert "is a checkpoint of another model: num_hidden_layers is 2 there and 3 here" in message
    assert contents(trained) == before


def interrupted(trained: Path, directory: Path) -> Path:
    """A copy of the trial as it was after step 5 of 10."""
    shutil.copytree(trained, directory)
    (directory / "result.json").unlink()
    shutil.rmtree(directory / "model")
    shutil.rmtree(directory / "checkpoints/checkpoint-10")
    return directory


@pytest.mark.parametrize("given", ["auto", "latest", True, "PATH"])
def test_a_trial_is_resumed_whatever_was_said_of_where_to_begin(
    neobert: Neobert, shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], given: str | bool
) -> None:
    trial = interrupted(trained, tmp_path / "trial")
    said = str(trained) if given == "PATH" else given
    size = {"max_steps": 10, "save_steps": 5, "resume_from_checkpoint": said}
    file = settings_file(tmp_path, shards, trainer=size)
    assert neobert("pretrain", "--config", file, "--output-dir", trial) == 0
    assert f", resumed from step 5 ({trial}/checkpoints/checkpoint-5)\n" in capfd.readouterr().out
    assert same(trial, trained)


def test_without_a_checkpoint_it_begins_anew_and_says_so(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings_file(tmp_path, shards, trainer={"max_steps": 1, "resume_from_checkpoint": "latest"})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert ", from the beginning: the trial has no checkpoint yet\n" in capfd.readouterr().out


def test_a_trial_without_a_usable_checkpoint_begins_only_where_it_did(
    told: Told, trained: Path, tmp_path: Path
) -> None:
    trial = interrupted(trained, tmp_path / "trial")
    (trial / "checkpoints/checkpoint-5/complete.json").unlink()
    message = told(out=trial, trainer={"max_steps": 10, "save_steps": 5, "resume_from_checkpoint": str(trained)})
    assert f"trainer.resume_from_checkpoint: is 'auto' there and {str(trained)!r} here, and no checkpoint of" in message


def test_a_training_from_anothers_checkpoint_has_intervals_of_its_own(
    neobert: Neobert, shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The directory of its checkpoints will do; the newest in it is taken."""
    trainer = {"max_steps": 14, "save_steps": 3, "logging_steps": 1, "eval_steps": 2, "save_total_limit": 9,
               "resume_from_checkpoint": str(trained / "checkpoints")}  # fmt: skip
    file = settings_file(tmp_path, shards, trainer=trainer)
    out = tmp_path / "trial"
    assert neobert("pretrain", "--config", file, "--output-dir", out) == 0
    assert f", begun from step 10 ({trained}/checkpoints/checkpoint-10)\n" in capfd.readouterr().out
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [11, 12, 13, 14]
    assert [row["step"] for row in rows if "eval_loss" in row] == [12, 14]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["checkpoint-12", "checkpoint-14"]


def test_what_has_no_effect_is_told(
    neobert: Neobert, shards: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = dict.fromkeys(SETTINGS["model"]) | {"name_or_path": str(trained / "model")}
    trainer = {"max_steps": 11, "resume_from_checkpoint": str(trained)}
    other = settings_file(tmp_path, shards, model=model, dataset={"lanes": 16}, trainer=trainer)
    assert neobert("pretrain", "--config", other, "--output-dir", tmp_path / "other") == 0
    error = capfd.readouterr().err
    start = trained / "checkpoints/checkpoint-10"
    assert f"dataset.lanes is 16, but the 8 lanes of {start} count" in error
    assert f"the weights are those of {start}, and not of model.name_or_path, {trained / 'model'}" in error
    new = settings_file(tmp_path, shards, datacollator={"pad_to_multiple_of": 8}, trainer={"max_steps": 1})
    assert neobert("pretrain", "--config", new, "--output-dir", tmp_path / "new") == 0
    assert "datacollator.pad_to_multiple_of does nothing: with pack_sequences there" in capfd.readouterr().err


def damage(path: Path) -> None:
    """At the same size, so that a marker without checksums does not tell."""
    path.write_bytes(b"#" * path.stat().st_size)


def test_a_checkpoint_that_is_damaged_at_the_same_size_is_passed_over(
    neobert: Neobert, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = Path(shutil.copytree(trained, tmp_path / "trial"))
    (trial / "result.json").unlink()
    newest = trial / "checkpoints/checkpoint-10"
    damage(newest / "model.safetensors")
    assert neobert("pretrain", "--config", trained / "pretrain.yaml", "--output-dir", trial) == 0
    output = capfd.readouterr()
    assert f"skipping the checkpoint {newest}: model.safetensors is damaged: its checksum is" in output.err
    assert "resumed from step 5" in output.out
    assert same(trial, trained)


def test_a_checkpoint_of_another_trial_that_is_named_must_be_whole(told: Told, trained: Path, tmp_path: Path) -> None:
    newest = Path(shutil.copytree(trained / "checkpoints/checkpoint-10", tmp_path / "checkpoint-10"))
    damage(newest / "optimizer.pt")
    size = {"max_steps": 10, "save_steps": 5, "resume_from_checkpoint": str(newest)}
    message = told(out=tmp_path / "new", trainer=size)
    assert message.startswith(
        f"trainer.resume_from_checkpoint: {newest} holds no complete checkpoint: optimizer.pt is damaged: its checksum"
    )
    message = told(out=tmp_path / "new", trainer=size | {"resume_from_checkpoint": str(trained / "model")})
    assert "model holds no complete checkpoint: it has no trainer_state.json, so no training can go on" in message


def test_a_model_to_begin_with_must_be_whole(told: Told, trained: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    flip_bit(model / "model.safetensors")
    message = told(model=dict.fromkeys(SETTINGS["model"]) | {"name_or_path": str(model)})
    assert (
        f"model.name_or_path: '{model}': no model can be loaded from it: {model} cannot be used: model.saf" in message
    )
    assert "its checksum is" in message


@pytest.mark.parametrize("name", ["model.safetensors", "place.json"])
def test_a_checkpoint_without_checksums_that_is_damaged_at_the_same_size(
    told: Told, trained: Path, tmp_path: Path, name: str
) -> None:
    trial = Path(shutil.copytree(trained, tmp_path / "trial"))
    (trial / "result.json").unlink()
    newest = trial / "checkpoints/checkpoint-10"
    forget_checksums(newest)
    damage(newest / name)
    size = {"max_steps": 10, "save_steps": 5}
    message = told(code=1, out=trial, trainer=size)
    assert "model.name_or_path" not in message
    assert message.startswith(
        f"{newest / name} is damaged: " if name == "place.json" else f"'{newest}': no model can be"
    )
    assert f". To go on without this checkpoint, remove {newest}, and the same command goes on from the" in message
    message = told(code=1, out=tmp_path / "new", trainer=size | {"resume_from_checkpoint": str(trial)})
    assert message.endswith(". To go on without this checkpoint, name another in trainer.resume_from_checkpoint")


def test_a_stream_whose_file_has_another_time_at_the_same_size_is_told(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path, 200)
    data = {"files": [str(text)], "streaming": True}
    file = settings_file(tmp_path, None, dataset=data, tokenizer={"name_or_path": str(shards / "tokenizer")})
    words = ["pretrain", "--config", file, "--output-dir", tmp_path / "trial", "trainer.max_steps=2"]
    assert neobert(*words) == 0
    for time in (None, (1, 1)):
        (tmp_path / "trial/result.json").unlink()
        if time:
            os.utime(text, time)
        assert neobert(*words) == 0
        told = "dataset: a file has another time than when" in capfd.readouterr().err
        assert told == (time is not None)


def test_held_out_text_of_the_hub_is_looked_for_in_the_cache_where_there_is_no_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import neobert.training.pretrain
    from neobert.config import PretrainConfig
    from neobert.tasks import pretrain
    from neobert.training.distributed import Ranks
    from neobert.training.files import TrialFiles
    from neobert.training.preemption import Preemption

    asked: list[str] = []
    monkeypatch.setattr(pretrain, "work_offline_if_unreachable", lambda: asked.append("hub"))
    monkeypatch.setattr(neobert.training.pretrain, "pretrain", lambda *_: None)
    for validation, expected in ((None, []), ({"files": ["a.txt"]}, []), ({"hub": "some/text"}, ["hub"])):
        section = {"path": "shards", "validation": validation}
        config = PretrainConfig.model_validate({"dataset": section, "trainer": {"max_steps": 1}})
        assert pretrain.run(config, TrialFiles(tmp_path), Ranks(), Preemption()) == 85
        assert asked == expected


def test_a_disk_that_is_full_when_a_checkpoint_is_written(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint of before stays as it was."""
    file = settings_file(tmp_path, shards, trainer={"max_steps": 20})
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "trial"
    assert neobert("pretrain", "--config", file, "--output-dir", undisturbed) == 0
    shutil.copytree(undisturbed, out)
    (out / "result.json").unlink()
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints/checkpoint-20")
    before = contents(out / "checkpoints")
    assert any(name.startswith("checkpoint-10/") for name in before)
    with full_disk():
        assert neobert("pretrain", "--config", file, "--output-dir", out) == 1
    error = capfd.readouterr().err
    assert f"neobert: the checkpoint of step 20 cannot be written to {out / 'checkpoints'}: " in error
    assert "Earlier checkpoints are untouched; the same command resumes." in error
    assert contents(out / "checkpoints") == before
    assert neobert("pretrain", "--config", file, "--output-dir", out) == 0
    assert same(out, undisturbed)


def test_a_disk_that_is_full_when_the_model_is_written(
    neobert: Neobert, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is there stays, and the same command, which has nothing to train any more, writes it."""
    out = Path(shutil.copytree(trained, tmp_path / "trial"))
    (out / "result.json").unlink()
    (out / "model/config.json").write_text("of before")
    before = contents(out / "model") | contents(out / "checkpoints")
    with full_disk():
        assert neobert("pretrain", "--config", trained / "pretrain.yaml", "--output-dir", out) == 1
    assert f"neobert: the model cannot be written to {out / 'model'}: " in capfd.readouterr().err
    assert contents(out / "model") | contents(out / "checkpoints") == before
    assert neobert("pretrain", "--config", trained / "pretrain.yaml", "--output-dir", out) == 0
    assert (out / "model/config.json").read_bytes() == (trained / "model/config.json").read_bytes()
    assert same(out, trained)


# Both attempts in one process pay for the imports once; the second comes after a crash before the model was written.
TWICE = """
import sys
from pathlib import Path
from neobert.cli import run

out = Path(sys.argv[-1])
assert run(sys.argv[1:]) == 0
(out / "result.json").unlink()
(out / "model").rename(out / "first")
assert run(sys.argv[1:]) == 0
"""


@pytest.mark.usefixtures("deepspeed")
def test_with_deepspeed_a_crash_before_the_model_is_written_costs_no_training(shards: Path, tmp_path: Path) -> None:
    trainer = {"max_steps": 2, "save_steps": 2, "mixed_precision": "bf16"}
    file = settings_file(tmp_path, shards, trainer=trainer, deepspeed={"zero_stage": 1})
    command = [sys.executable, "-c", TWICE, "pretrain", "--config", str(file), "--output-dir", str(tmp_path / "trial")]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environ)
    assert done.returncode == 0, done.stderr
    first, then = (load_file(tmp_path / "trial" / name / "model.safetensors") for name in ("first", "model"))
    assert {name: weight.dtype for name, weight in then.items()} == dict.fromkeys(first, torch.bfloat16)
    assert all(torch.equal(first[name], then[name]) for name in first)
    assert (tmp_path / "trial/model/tokenizer.json").is_file()
