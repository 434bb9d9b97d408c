"""DeepSpeed changes where weights, gradients and optimizer states are kept, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from neobert.config import ConfigError
from neobert.model import NeoBERTForSequenceClassification
from neobert.training import deepspeed
from neobert.training.classifying import ClassifierTrainer
from tests.neobert.conftest import REPOSITORY, TINY
from tests.neobert.training.disk import estimated
from tests.neobert.training.test_gradients import free_port

pytestmark = pytest.mark.usefixtures("deepspeed")

# Weights of every size are shared out at stage 3: by default, none of a model as small as this would be.
STAGES = {stage: [f"deepspeed.zero_stage={stage}"] for stage in (0, 1, 2, 3)}
STAGES[3] += ["deepspeed.stage3_param_persistence_threshold=0"]

# A large epsilon, so that AdamW does not hide a wrong scale of the gradients; and clipping that takes effect.
SETTINGS = ["task_name=rte", "data.max_length=32", "data.max_eval_samples=20", "trainer.num_train_epochs=2",
            "trainer.logging_steps=1", "trainer.use_cpu=true", "trainer.gradient_clipping=0.1", "optimizer.eps=1.0",
            "optimizer.lr=1.0", "scheduler.name=constant", "scheduler.warmup_steps=0", "trainer.keep=all"]  # fmt: skip
PIECES = ["trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=2"]

# Several trainings one after another pay for the imports once. One that is to be stopped gets a real signal, and only
# its last process does.
DRIVER = """
import json, os, signal, sys, traceback
from pathlib import Path
from neobert.logs import set_up_logging
from neobert.settings import from_command_line
from neobert.tasks import glue
from neobert.training.distributed import find_ranks
from neobert.training.files import TrialFiles
from neobert.training.preemption import Preemption

class SignalledAtStep(Preemption):
    def agreed(self):
        self.steps = getattr(self, "steps", 0) + 1
        if ranks.rank == ranks.world_size - 1 and self.steps == stop_at:
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().agreed()

ranks, codes = find_ranks(os.environ), []
set_up_logging(ranks)
work, stop_at = json.loads(sys.argv[1])
for directory, settings in work.items():
    preemption = SignalledAtStep()
    preemption.listen()
    Path(directory).mkdir(parents=True, exist_ok=True)
    try:
        config = from_command_line("glue", None, settings).config
        codes.append(glue.run(config, TrialFiles(Path(directory)), ranks, preemption))
    except Exception as error:
        traceback.print_exc()
        codes.append(f"{type(error).__name__}: {error}")
print(json.dumps(codes), flush=True)
os._exit(0)
"""


def run_all(work: dict[Path, list[str]], ranks: int = 2, stop_at: int = 0) -> tuple[list[Any], str]:
    """Trains with the given settings in the given directories, in so many processes.

    Returns the exit codes (of an error, its message) and what the main process said. Nothing may be compiled for them:
    neither need a node have a compiler, nor a trial a minute for it.
    """
    port, processes = str(free_port()), []
    compiled = next(iter(work)).parent / "compiled"
    argument = json.dumps([{str(directory): settings for directory, settings in work.items()}, stop_at])
    for rank in map(str, range(ranks)):
        environ = os.environ | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1",
                                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                                "TORCH_EXTENSIONS_DIR": str(compiled)}  # fmt: skip
        command = [sys.executable, "-c", DRIVER, argument]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=environ, cwd=REPOSITORY, **pipes))
    outputs = [process.communicate(timeout=540)[0] for process in processes]
    codes = [output.strip().splitlines()[-1] if output.strip() else "" for output in outputs]
    assert len(set(codes)) == 1 and codes[0].startswith("["), "\n".join(outputs)
    assert not compiled.exists()
    return json.loads(codes[0]), outputs[0]


def weights(directory: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def logged(directory: Path, key: str) -> list[float]:
    entries = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [entry[key] for entry in entries if key in entry]


def assert_same_training(found: Path, expected: Path, steps: int) -> None:
    assert logged(found, "loss") == pytest.approx(logged(expected, "loss"), rel=1e-5)
    assert logged(found, "eval_loss") == pytest.approx(logged(expected, "eval_loss"), rel=1e-5)
    assert len(logged(found, "loss")) == steps
    theirs, ours = weights(expected, steps), weights(found, steps)
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings of two processes: `whole-N` and `uneven-N` at each stage, and `uneven` without DeepSpeed."""
    directory = tmp_path_factory.mktemp("trained")
    common = [*SETTINGS, *PIECES, f"model.name_or_path={tiny_bert}"]
    uneven = ["data.generated=50", "trainer.class_weights=balanced"]
    work = {directory / "uneven": [*common, *uneven]}
    for stage, settings in STAGES.items():
        work[directory / f"whole-{stage}"] = [*common, *settings, "data.generated=48"]
        work[directory / f"uneven-{stage}"] = [*common, *settings, *uneven]
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    return directory


@pytest.fixture(scope="module")
def one(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training of one process without DeepSpeed and without accumulation, with the same global batch."""
    directory = tmp_path_factory.mktemp("one")
    settings = [*SETTINGS, "trainer.per_device_train_batch_size=16", "data.generated=48"]
    codes, output = run_all({directory: [*settings, f"model.name_or_path={tiny_bert}"]}, ranks=1)
    assert codes == [0], output
    return directory


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_that_accumulate_train_like_one(trained: Path, one: Path, tiny_bert: Path, stage: int) -> None:
    assert_same_training(trained / f"whole-{stage}", one, 6)
    if stage:  # without ZeRO, DeepSpeed tells no norm
        assert logged(trained / f"whole-{stage}", "grad_norm") == pytest.approx(logged(one, "grad_norm"), rel=1e-5)
        assert logged(one, "grad_norm")[1] > 0.1  # clipped
    start = load_file(tiny_bert / "model.safetensors")["bert.encoder.layer.0.output.dense.weight"]
    moved = weights(trained / f"whole-{stage}", 6)["bert.encoder.layer.0.output.dense.weight"] - start
    assert moved.abs().max() > 1e-4  # what is compared has moved, by a hundred times the tolerance


@pytest.mark.parametrize("stage", STAGES)
def test_a_last_batch_of_fewer_and_smaller_pieces_counts_right(trained: Path, stage: int) -> None:
    """50 examples in pieces of 4 for two processes: the last batch of an epoch has one piece each, not two.

    The classes have weights, of which no two pieces have the same sum.
    """
    assert_same_training(trained / f"uneven-{stage}", trained / "uneven", 8)


# As people train: dropout, a schedule, AdamW's usual epsilon. 64 examples for two processes: 8 steps an epoch.
USUAL = [*TINY, "task_name=qnli", "data.generated=64", "trainer.num_train_epochs=2", "trainer.logging_steps=1",
         "trainer.per_device_train_batch_size=4", "scheduler.warmup_steps=4", "trainer.keep=all"]  # fmt: skip


def numbers(directory: Path, rows: int) -> list[str]:
    """Settings for a regression on files of one's own, with a test file."""
    lines = [f"{'so ' * (row % 7)}many,{'words ' * (row % 3)},{row % 7 + row % 3 / 10}" for row in range(rows)]
    for name in ("train", "validation", "test"):
        (directory / f"{name}.csv").write_text("sentence1,sentence2,label\n" + "\n".join(lines) + "\n")
    return [f"data.{name}_file={directory / name}.csv" for name in ("train", "validation", "test")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings of two processes that nobody interrupts: `qnli-N` at each stage, and `numbers` with predictions."""
    directory = tmp_path_factory.mktemp("undisturbed")
    regression = [*TINY, *numbers(directory, 43), "trainer.num_train_epochs=3", "trainer.per_device_train_batch_size=4",
                  "trainer.keep=all"]  # fmt: skip
    work = {directory / "numbers": regression}
    for stage in (2, 3):
        work[directory / f"numbers-{stage}"] = [*regression, *STAGES[stage]]
    work |= {directory / f"qnli-{stage}": [*USUAL, *settings] for stage, settings in STAGES.items()}
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    (directory / "numbers.json").write_text(json.dumps(regression))
    return directory


@pytest.fixture(scope="module")
def interrupted(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same trainings, stopped at step 5 and then resumed by new processes, and what these said."""
    directory = tmp_path_factory.mktemp("interrupted")
    work = {directory / f"qnli-{stage}": [*USUAL, *settings] for stage, settings in STAGES.items()}
    codes, output = run_all(work, stop_at=5)
    assert codes == [85] * len(work), output
    for trial in work:
        assert [path.name for path in (trial / "checkpoints").glob("checkpoint-*")] == ["checkpoint-5"]
    # As if the next checkpoint had been cut short; and a trial that lacks nothing but its result.
    broken = Path(shutil.copytree(undisturbed / "qnli-2/checkpoints/checkpoint-8",
                                  directory / "qnli-2/checkpoints/checkpoint-8"))  # fmt: skip
    shard = next(broken.glob("global_step8/*_1_*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:100])
    for stage in (2, 3):
        trial = Path(shutil.copytree(undisturbed / f"numbers-{stage}", directory / f"numbers-{stage}"))
        (trial / "result.json").unlink()
        (trial / "predictions" / "test.tsv").unlink()
        work[trial] = [*json.loads((undisturbed / "numbers.json").read_text()), *STAGES[stage]]
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    return directory, output


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_that_was_stopped_and_resumed_ends_bit_for_bit_the_same(
    undisturbed: Path, interrupted: tuple[Path, str], stage: int
) -> None:
    directory, output = interrupted
    expected, found = weights(undisturbed / f"qnli-{stage}", 16), weights(directory / f"qnli-{stage}", 16)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert output.count("resumed from step 5\n") == len(STAGES)
    for key in ("loss", "learning_rate", "eval_loss", "eval_accuracy"):
        assert logged(directory / f"qnli-{stage}", key) == logged(undisturbed / f"qnli-{stage}", key), key


def test_a_checkpoint_with_a_shard_cut_short_is_skipped(interrupted: tuple[Path, str]) -> None:
    assert (
        "checkpoint-8: global_step8/zero_pp_rank_1_mp_rank_00_optim_states.pt has 100 bytes instead of"
        in interrupted[1]
    )


def predictions(directory: Path) -> torch.Tensor:
    return torch.tensor([float(line.split("\t")[1]) for line in directory.read_text().splitlines()[1:]])


def predicted_by(checkpoint: Path, test_file: Path) -> torch.Tensor:
    model = NeoBERTForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    pairs = [line.split(",")[:2] for line in test_file.read_text().splitlines()[1:]]
    with torch.no_grad():
        inputs = tokenizer(*zip(*pairs, strict=True), padding=True, return_tensors="pt")
        return model(inputs["input_ids"], inputs["attention_mask"]).logits[:, 0]


def test_once_done_the_best_model_stays_whole_and_the_shards_go(large_bert: Path, tmp_path: Path) -> None:
    """Other shards stay only with the last checkpoint, where that is kept. The result can be made anew in any case."""
    short = [*SETTINGS[:-1], *PIECES, "task_name=rte", "data.generated=16", f"model.name_or_path={large_bert}"]
    work = {
        tmp_path / f"{keep}-{stage}": [*short, *settings, f"trainer.keep={keep}"]
        for stage, settings in STAGES.items()
        for keep in (("last", "best") if stage > 1 else ("last",))
    }
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    results = {trial: json.loads((trial / "result.json").read_text()) for trial in work}
    for trial, result in results.items():
        shards = {path.parents[1].name for path in trial.glob("checkpoints/*/global_step*/*")}
        assert shards == ({f"checkpoint-{result['steps']}"} if trial.name.startswith("last") else set())
        assert (trial / f"checkpoints/checkpoint-{result['step']}" / "model.safetensors").exists()
        if trial.name.startswith("last") and result["step"] != result["steps"]:
            written = sum(path.stat().st_size for path in trial.rglob("*") if path.is_file())
            assert estimated(work[trial]).stays == pytest.approx(written, rel=0.05), trial.name
        (trial / "result.json").unlink()
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    assert "\nstep " not in output
    for trial, result in results.items():
        again = json.loads((trial / "result.json").read_text())
        assert again | {"seconds": 0} == result | {"seconds": 0}


@pytest.mark.parametrize("stage", [2, 3])
def test_predictions_come_from_the_best_checkpoint(
    undisturbed: Path, interrupted: tuple[Path, str], stage: int
) -> None:
    """Right after the training, and by an attempt that has nothing left to train."""
    trial = undisturbed / f"numbers-{stage}"
    result = json.loads((trial / "result.json").read_text())
    best, last = (
        predicted_by(trial / f"checkpoints/checkpoint-{result[step]}", undisturbed / "test.csv")
        for step in ("step", "steps")
    )
    assert (best - last).abs().max() > 0.05
    for directory in (undisturbed, interrupted[0]):
        found = predictions(directory / f"numbers-{stage}" / "predictions" / "test.tsv")
        torch.testing.assert_close(found, best, atol=1e-3, rtol=0)  # three decimals are written
    assert json.loads((undisturbed / "numbers" / "result.json").read_text())["metrics"]["pearson"] == pytest.approx(
        result["metrics"]["pearson"], abs=1e-5
    )


def test_another_number_of_processes_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    trial = Path(shutil.copytree(undisturbed / "qnli-3", tmp_path / "qnli-3"))
    (trial / "result.json").unlink()
    # As many steps as before: only the checkpoint itself can tell.
    codes, _ = run_all({trial: [*USUAL, *STAGES[3], "trainer.gradient_accumulation_steps=2"]}, ranks=1)
    assert re.search("the number of processes was 2 when .*checkpoint-16 was written, and is 1 now", codes[0])


def test_one_process_needs_no_meeting_and_says_no_more_than_without_deepspeed(tmp_path: Path) -> None:
    """As the command itself, which also has to end."""
    settings = [*TINY, "task_name=rte", "data.generated=32", "trainer.num_train_epochs=1", "deepspeed.zero_stage=2"]
    environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    command = [sys.executable, "-m", "neobert", "glue", *settings, "--output-dir", str(tmp_path)]
    done = subprocess.run(command, env=environ, cwd=REPOSITORY, text=True, capture_output=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]  # about so small a training
    assert (done.returncode, said) == (0, [])
    assert "4 steps of 8 examples on 1 x cpu with DeepSpeed (ZeRO stage 2)" in done.stdout
    assert "[" not in done.stdout  # DeepSpeed begins its lines with [2026-01-31 ...] [INFO]


def test_a_missing_package_is_named_with_what_brings_it(
    neobert: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neobert.training.deepspeed.importlib.util.find_spec", lambda name: None)
    settings = [*TINY, "task_name=rte", "data.generated=32", "deepspeed.zero_stage=2"]
    assert neobert("glue", *settings, "--output-dir", tmp_path) == 2
    assert capsys.readouterr().err == (
        "neobert: deepspeed: needs the package deepspeed: "
        "run `pip install -c constraints.txt -e '.[deepspeed]'` in the checkout\n"
    )


@pytest.mark.parametrize(
    ("built", "there", "complaint"),
    [({"cpu_adam": True}, (), None), ({}, ("c++", "ninja"), None), ({}, ("ninja",), "there is no c.. here"),
     ({}, (), "there is no c.. and no ninja here")],
)  # fmt: skip
def test_an_optimizer_in_host_memory_needs_a_compiler_beside_gpus(
    monkeypatch: pytest.MonkeyPatch, built: dict[str, bool], there: tuple[str, ...], complaint: str | None
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr("deepspeed.git_version_info.installed_ops", built)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    monkeypatch.delenv("CXX", raising=False)
    settings: dict[str, Any] = {
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        "train_micro_batch_size_per_gpu": 4,
    }
    if complaint is None:
        deepspeed.start(settings, on_cpu=False)
    else:
        with pytest.raises(ConfigError, match=complaint):
            deepspeed.start(settings, on_cpu=False)
    assert settings["zero_force_ds_cpu_optimizer"]
    deepspeed.start(settings, on_cpu=True)
    assert not settings["zero_force_ds_cpu_optimizer"]


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [({"zero_optimization": {"stage": 2, "reduce_bucket": 1}}, "reduce_bucket: Extra inputs are not permitted$"),
     ({"checkpoint": {"tag_validation": "Never"}}, "invalid tag_validation value of NEVER")],
)  # fmt: skip
def test_what_only_deepspeed_can_judge_in_a_file_is_a_message_too(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, Any], complaint: str
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    settings = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "zero_optimization": {}, **contents}
    with pytest.raises(ConfigError, match=r"^deepspeed: DeepSpeed does not accept this configuration: .*" + complaint):
        deepspeed.start(settings, on_cpu=True)


def test_labels_are_not_rounded_to_the_precision_of_the_model() -> None:
    """3.8 would become 3.796875, in the loss and in the metrics."""
    trainer: Any = object.__new__(ClassifierTrainer)
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    trainer.args, trainer.is_deepspeed_enabled = SimpleNamespace(device=torch.device("cpu")), True
    trainer.label_names = ["labels"]
    prepared = trainer._prepare_inputs({"labels": torch.tensor([3.8]), "other": torch.tensor([3.8])})
    assert torch.equal(prepared["labels"], torch.tensor([3.8]))
    assert prepared["other"].dtype == torch.bfloat16


@pytest.mark.slow
def test_precisions_offloading_and_buckets(tmp_path: Path) -> None:
    """bf16 comes near fp32 and resumes exactly; whatever else only moves data, changes nothing."""
    bf16 = "trainer.mixed_precision=bf16"
    work = {tmp_path / "plain": USUAL}
    work |= {tmp_path / f"bf16-{stage}": [*USUAL, bf16, *settings] for stage, settings in STAGES.items()}
    moving = {
        "optimizer-1": [*STAGES[1], "deepspeed.offload_optimizer=cpu"],
        "optimizer-3": [*STAGES[3], "deepspeed.offload_optimizer=cpu"],
        "weights-3": [*STAGES[3], "deepspeed.offload_optimizer=cpu", "deepspeed.offload_param=cpu"],
        "recomputed-3": [*STAGES[3], "trainer.gradient_checkpointing=true"],
        "buckets-1": [*STAGES[1], "deepspeed.reduce_bucket_size=500", "deepspeed.allgather_bucket_size=600"],
        "overlap-2": [*STAGES[2], "deepspeed.overlap_comm=true", "deepspeed.contiguous_gradients=false"],
        "hpz-3": [*STAGES[3], "deepspeed.zero_hpz_partition_size=2"],
    }
    work |= {tmp_path / name: [*USUAL, *settings] for name, settings in moving.items()}
    codes, output = run_all(work)
    assert codes == [0] * len(work), output
    for name in moving:
        assert_same_training(tmp_path / name, tmp_path / "plain", 16)
    stopped = {tmp_path / f"stopped-{stage}": [*USUAL, bf16, *settings] for stage, settings in STAGES.items()}
    assert run_all(stopped, stop_at=5)[0] == [85] * 4
    assert run_all(stopped)[0] == [0] * 4
    for stage in STAGES:
        assert logged(tmp_path / f"bf16-{stage}", "loss") == pytest.approx(logged(tmp_path / "plain", "loss"), abs=0.01)
        expected, found = weights(tmp_path / f"bf16-{stage}", 16), weights(tmp_path / f"stopped-{stage}", 16)
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_in_bf16_an_attempt_that_has_nothing_left_to_train_predicts_the_same(tmp_path: Path) -> None:
    settings = [*TINY, *numbers(tmp_path, 43), "trainer.num_train_epochs=2", "trainer.mixed_precision=bf16"]
    work = {tmp_path / f"numbers-{stage}": [*settings, *STAGES[stage]] for stage in (1, 3)}
    codes, output = run_all(work)
    assert codes == [0, 0], output
    before = [(trial / "predictions" / "test.tsv").read_text() for trial in work]
    for trial in work:
        (trial / "result.json").unlink()
        (trial / "predictions" / "test.tsv").unlink()
    assert run_all(work)[0] == [0, 0]
    assert [(trial / "predictions" / "test.tsv").read_text() for trial in work] == before
