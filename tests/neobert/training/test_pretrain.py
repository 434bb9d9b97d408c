"""A pretraining learns, stops and goes on as if nothing had happened, and takes the same steps however it is split."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tests.neobert.conftest import launch
from tests.neobert.damage import zero_page
from tests.neobert.training.forkserver import Trials
from tests.neobert.training.pretraining import Neobert, logged, same, settings_file, weights, write_shards, write_text

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    return write_shards(lambda *words: run(list(map(str, words))), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neobert.cli import run

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("undisturbed")
    assert run(["pretrain", "--config", str(settings_file(directory, shards)), "--output-dir", str(directory)]) == 0
    return directory


def test_it_learns_and_leaves_a_model_that_hugging_face_loads(neobert: Neobert, shards: Path, tmp_path: Path) -> None:
    file = settings_file(tmp_path, shards, trainer={"max_steps": 150, "eval_steps": 75, "save_steps": 500})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    result = json.loads((tmp_path / "trial/result.json").read_text())
    assert result["metric"] == "masked_accuracy"
    assert result["score"] > result["baseline"] + 0.1, "better than the commonest word"
    assert result["metrics"]["loss"] < 4.0
    assert result["steps"] == 150
    losses = logged(tmp_path / "trial", "loss")
    assert losses[-1] < losses[0] - 1
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "trial/model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trial/model")
    assert model(**tokenizer("the [MASK]", return_tensors="pt")).logits.shape == (1, 4, len(tokenizer))


def test_stopped_and_resumed_it_ends_bit_for_bit_the_same(
    neobert: Neobert, shards: Path, undisturbed: Path, tmp_path: Path, signal_at_line: Callable[[Path, int], None]
) -> None:
    file = settings_file(tmp_path, shards)
    signal_at_line(tmp_path / "trial/metrics.jsonl", 3)
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 85
    stopped = max(int(path.name.split("-")[1]) for path in (tmp_path / "trial/checkpoints").glob("checkpoint-*"))
    assert 10 <= stopped < 30
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert same(tmp_path / "trial", undisturbed)
    assert logged(tmp_path / "trial", "tokens")[-1] == logged(undisturbed, "tokens")[-1]


def test_measured_in_tokens_it_tells_how_many_steps_there_will_be(
    neobert: Neobert, shards: Path, tmp_path: Path, signal_at_line: Callable[[Path, int], None], capfd: Capture
) -> None:
    file = settings_file(tmp_path, shards, trainer={"max_steps": None, "max_tokens": 3600, "logging_steps": 2})
    for code in (85, 0):
        if code:
            signal_at_line(tmp_path / "trial/metrics.jsonl", 3)
        assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == code
    lines = re.findall(r"^step (\d+)/(\d+) ", capfd.readouterr().out, re.MULTILINE)
    told = [(int(step), int(total)) for step, total in lines]
    assert told[-1][0] == told[-1][1]
    assert all(abs(total - told[-1][1]) < 12 for _, total in told), told
    assert all(abs(total - told[-1][1]) < 3 for _, total in told[-5:]), told
    progress = json.loads((tmp_path / "trial/progress.json").read_text())
    assert (progress["step"], progress["total_steps"], progress["seconds_left"]) == (*told[-1], 0.0)


def test_a_stream_with_lanes_that_have_no_text_goes_on_in_its_third_epoch(
    neobert: Neobert, shards: Path, tmp_path: Path
) -> None:
    """One small file is one part, for one of the 8 lanes."""
    file = settings_file(
        tmp_path, None, dataset={"files": [str(write_text(tmp_path, 40))], "streaming": True},
        tokenizer={"name_or_path": str(shards / "tokenizer")}, trainer={"save_total_limit": 9},
    )  # fmt: skip
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "whole") == 0
    trial = Path(shutil.copytree(tmp_path / "whole", tmp_path / "trial"))
    (trial / "result.json").unlink()
    shutil.rmtree(trial / "model")
    shutil.rmtree(trial / "checkpoints/checkpoint-30")
    assert 2 < json.loads((trial / "checkpoints/checkpoint-20/trainer_state.json").read_text())["epoch"] < 20
    assert neobert("pretrain", "--config", file, "--output-dir", trial) == 0
    assert same(trial, tmp_path / "whole")
    assert logged(trial, "epoch") == logged(tmp_path / "whole", "epoch")


@pytest.mark.parametrize("workers", [1, 2])
def test_it_goes_on_with_another_number_of_workers(
    neobert: Neobert, shards: Path, undisturbed: Path, tmp_path: Path, workers: int
) -> None:
    file = settings_file(tmp_path, shards, dataset={"num_workers": workers})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert same(tmp_path / "trial", undisturbed)


def test_stopped_it_resumes_with_another_number_of_workers(
    neobert: Neobert, shards: Path, undisturbed: Path, tmp_path: Path, signal_at_line: Callable[[Path, int], None]
) -> None:
    signal_at_line(tmp_path / "trial/metrics.jsonl", 3)
    for workers, code in ((0, 85), (2, 0)):
        file = settings_file(tmp_path, shards, dataset={"num_workers": workers})
        assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == code
    assert same(tmp_path / "trial", undisturbed)


def test_a_peak_that_is_measured_gives_an_mfu_and_the_console_shows_it(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: Capture
) -> None:
    file = settings_file(tmp_path, shards, trainer={"peak_tflops": "measure", "max_steps": 4, "logging_steps": 2})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    output = capfd.readouterr().out
    (peak,) = re.findall(r"^peak of the device: (\S+) TFLOPS, as measured in float32$", output, re.MULTILINE)
    assert float(peak) > 0
    assert all(0 < share < 1 for share in logged(tmp_path / "trial", "mfu"))
    assert (
        len(
            re.findall(
                r"^step .* tokens/s, MFU \d+\.\d%, \d+\.\d GB, "
                r"data \d+% forward \d+% backward \d+% optimizer \d+%",
                output,
                re.MULTILINE,
            )
        )
        == 3
    )


def test_a_profile_changes_nothing_and_tells_of_its_steps(
    neobert: Neobert, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    file = settings_file(tmp_path, shards, trainer={"profile_steps": 3})
    assert neobert("pretrain", "--config", file, "--output-dir", tmp_path / "trial") == 0
    assert same(tmp_path / "trial", undisturbed)
    assert "aten::" in (tmp_path / "trial/profile/steps-11-13.txt").read_text()
    with gzip.open(tmp_path / "trial/profile/steps-11-13.json.gz") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"]]
    assert sum(name.startswith("Optimizer.step#") for name in names) == 3


@pytest.mark.parametrize("pack", [True, False])
def test_however_a_step_is_split_it_is_the_same(neobert: Neobert, shards: Path, tmp_path: Path, pack: bool) -> None:
    """64 rows as 1 x 64, as 4 x 16 accumulated, as 2 processes x 32. A large epsilon keeps a wrong scale visible."""
    common = {"datacollator": {"pack_sequences": pack}, "optimizer": {"lr": 0.5, "eps": 0.1}}

    def trained(name: str, batch: int, pieces: int, processes: int) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        size = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": pieces, "max_steps": 4}
        file = settings_file(directory, shards, trainer=size | {"logging_steps": 1}, **common)
        words = ["pretrain", "--config", file, "--output-dir", directory]
        if processes == 1:
            assert neobert(*words) == 0
            return directory
        ranks = launch(words, processes, 29641 + pack)
        for rank in ranks:
            output, _ = rank.communicate(timeout=120)
            assert rank.returncode == 0, output
        return directory

    whole, two = trained("whole", 64, 1, 1), trained("two", 32, 1, 2)
    for part in ("data", "forward", "backward", "optimizer", "communication"):
        assert len(logged(two, f"seconds_{part}")) == 4
        assert all(seconds > 0 for seconds in logged(two, f"seconds_{part}")[1:]), part
    assert not logged(whole, "seconds_communication")
    for other in (trained("accumulated", 16, 4, 1), two):
        assert logged(other, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-5)
        assert logged(other, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-4)
        assert logged(other, "tokens") == logged(whole, "tokens")
        assert same(other, whole, 1e-5)
    start = tmp_path / "start"
    start.mkdir()
    file = settings_file(start, shards, trainer={"max_steps": 1}, optimizer={"lr": 1e-9})
    assert neobert("pretrain", "--config", file, "--output-dir", start) == 0
    moved = max((weights(whole)[name] - weights(start)[name]).abs().max() for name in weights(whole))
    assert moved > 1e-3, "what is compared has moved, by a hundred times the tolerance"


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_twenty_random_moments_it_ends_bit_for_bit_the_same(
    shards: Path, tmp_path: Path, streaming: bool
) -> None:
    """kill -9, at moments of a fixed list: before the first step, and soon after some step or other.

    A stream passes several epochs, and most of its lanes have no text.
    """
    text = {"path": None, "files": [str(write_text(tmp_path, 300))], "streaming": True}
    sections = {"dataset": text, "tokenizer": {"name_or_path": str(shards / "tokenizer")}} if streaming else {}
    trainer = {"max_steps": 200, "save_steps": 2, "logging_steps": 2}
    file = settings_file(tmp_path, None if streaming else shards, trainer=trainer, **sections)
    moments = random.Random(5)
    trials = Trials()

    def attempt(name: str, kill_at: int | None = None) -> int:
        """Kills the attempt once it has logged that step."""
        trial, log = tmp_path / name, tmp_path / f"{name}.log"
        process = trials.start(["pretrain", "--config", file, "--output-dir", trial], log)
        if kill_at is not None:
            deadline = time.monotonic() + 60
            while kill_at and _steps(trial) < kill_at and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.05 if kill_at else 1.0))
            os.kill(process, signal.SIGKILL)
        code = trials.wait()
        assert code == (0 if kill_at is None else -signal.SIGKILL), log.read_text()
        return _steps(trial)

    attempt("whole")
    assert logged(tmp_path / "whole", "epoch")[-1] > (4 if streaming else 1)
    reached = 0
    for number in range(20):
        reached = attempt("trial", 0 if number % 5 == 4 else reached + moments.randint(2, 10))
    assert 20 < reached < 200
    attempt("trial")
    trials.close()
    assert same(tmp_path / "trial", tmp_path / "whole")
    assert logged(tmp_path / "trial", "loss") == logged(tmp_path / "whole", "loss")


@pytest.mark.parametrize(
    ("stage", "processes"),
    [(None, 4), (3, 1), *(pytest.param(stage, many, marks=pytest.mark.slow)
                          for stage, many in [(None, 1), (0, 4), (1, 1), (1, 4), (2, 1), (2, 4), (3, 4)])],
)  # fmt: skip
def test_another_number_of_processes_goes_on_from_a_checkpoint_of_two(
    neobert: Neobert, shards: Path, tmp_path: Path, stage: int | None, processes: int
) -> None:
    sharing = {} if stage is None else {"deepspeed": {"zero_stage": stage}}

    def trained(name: str, many: int, **trainer: object) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        size = {"per_device_train_batch_size": 8 // many, "max_steps": 12, "save_steps": 6, "logging_steps": 1}
        file = settings_file(directory, shards, trainer=size | trainer, **sharing)
        for rank in (
            ranks := launch(
                ["pretrain", "--config", file, "--output-dir", directory], many, 29700 + 10 * processes + (stage or 0)
            )
        ):
            output, _ = rank.communicate(timeout=300)
            assert rank.returncode == 0, output
        assert len(ranks) == many
        return directory

    two = trained("two", 2)
    other = trained("other", processes, resume_from_checkpoint=str(two / "checkpoints/checkpoint-6"))
    assert logged(other, "step")[0] == 7
    assert logged(other, "tokens") == logged(two, "tokens")[6:]
    assert logged(other, "loss") == pytest.approx(logged(two, "loss")[6:], rel=1e-5)
    assert same(other, two, 1e-5)
    assert not list(other.glob("checkpoints/universal-*"))


def test_a_damaged_shard_of_one_process_is_passed_over_by_all(deepspeed: None, shards: Path, tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    file = settings_file(tmp_path, shards, trainer={"max_steps": 6, "save_steps": 3}, deepspeed={"zero_stage": 2})

    def train(port: int) -> str:
        ranks = launch(["pretrain", "--config", file, "--output-dir", trial], 2, port)
        told = [rank.communicate(timeout=300)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], told
        return told[0]

    train(29751)
    undisturbed = Path(shutil.copytree(trial, tmp_path / "undisturbed"))
    (trial / "result.json").unlink()
    (shard,) = trial.glob("checkpoints/checkpoint-6/global_step6/*zero_pp_rank_1_*optim_states.pt")
    zero_page(shard)
    told = train(29753)
    assert re.search(rf"checkpoint-6: global_step6/{re.escape(shard.name)} is damaged in its part ", told)
    assert "resumed from step 3 (" in told
    assert same(trial, undisturbed)


@pytest.mark.slow
def test_saved_by_four_processes_a_trial_goes_on_with_two_and_with_eight(
    neobert: Neobert, shards: Path, tmp_path: Path
) -> None:
    """In its own directory and with its own settings, as a job that gets other nodes; with ZeRO and without.

    What each comes to is compared with one process that has as many rows a step.
    """
    size = {"max_steps": 12, "save_steps": 6, "logging_steps": 1}

    def settings(name: str, rows: int = 1, sharing: dict[str, object] | None = None, **trainer: object) -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        sections = {"trainer": size | {"per_device_train_batch_size": rows} | trainer}
        return settings_file(directory, shards, **sections, **({"deepspeed": sharing} if sharing else {}))

    def trained(file: Path, directory: Path, processes: int) -> str:
        ranks = launch(["pretrain", "--config", file, "--output-dir", directory], processes, 29810 + processes)
        told = [rank.communicate(timeout=300)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * processes, told
        return told[0]

    references: dict[int, Path] = {}
    for name, sharing in (("plain", None), ("zero", {"zero_stage": 2})):
        file, four = settings(name, sharing=sharing), tmp_path / name
        trained(file, four, 4)
        for many in (2, 8):
            trial = Path(shutil.copytree(four, tmp_path / f"{name}-{many}"))
            (trial / "result.json").unlink()
            shutil.rmtree(trial / "model")
            shutil.rmtree(trial / "checkpoints/checkpoint-12")
            told = trained(file, trial, many)
            assert f"was written by 4 processes, and now there are {many}: a step has {many} rows instead of 4" in told
            if many not in references:
                start = str(four / "checkpoints/checkpoint-6")
                reference = settings(f"reference-{many}", many, resume_from_checkpoint=start)
                references[many] = tmp_path / f"reference-{many}"
                assert neobert("pretrain", "--config", reference, "--output-dir", references[many]) == 0
            assert logged(trial, "step") == list(range(1, 13))
            assert logged(trial, "tokens")[6:] == logged(references[many], "tokens")
            assert logged(trial, "loss")[6:] == pytest.approx(logged(references[many], "loss"), rel=1e-5)
            assert same(trial, references[many], 1e-5)


def test_in_its_epochs_every_piece_is_trained_on_though_processes_have_unequal_shares(
    neobert: Neobert, tmp_path: Path
) -> None:
    """Pieces of very unequal length: at the end of an epoch one process has rows left, and the other computes none."""
    texts = ["the film is " + "very " * (number % 50 * (number % 3 == 0)) + "good" for number in range(400)]
    (tmp_path / "text.txt").write_text("\n".join(texts) + "\n")
    shards = write_shards(neobert, tmp_path, data={"files": [str(tmp_path / "text.txt")]}, validation_fraction=0.0)
    size = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "logging_steps": 1, "max_steps": None}
    common = {"dataset": {"lanes": 4, "shuffle_buffer_size": 256}, "trainer": {**size, "num_train_epochs": 2.0}}
    file = settings_file(tmp_path, shards, **common)
    ranks = launch(["pretrain", "--config", file, "--output-dir", tmp_path / "trial"], 2, 29671)
    for rank in ranks:
        output, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0, output
    manifest = json.loads((shards / "manifest.json").read_text())
    assert logged(tmp_path / "trial", "tokens")[-1] == 2 * manifest["train"]["tokens"]
    assert logged(tmp_path / "trial", "epoch")[-1] == 2.0
    assert all(0 < loss < 10 for loss in logged(tmp_path / "trial", "loss"))


def test_lanes_that_processes_cannot_share_are_a_clear_message(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings_file(tmp_path, shards, dataset={"lanes": 3})
    ranks = launch(["pretrain", "--config", file, "--output-dir", tmp_path / "trial"], 2, 29661)
    told = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1]
    assert "3 lanes, which 2 processes cannot share evenly" in told[0]
    assert "or set dataset.lanes: 16" in told[0]


def test_a_resume_with_other_data_is_refused(
    neobert: Neobert, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = write_shards(neobert, tmp_path, validation_fraction=0.2)
    first = settings_file(tmp_path, shards, trainer={"max_steps": 10})
    assert neobert("pretrain", "--config", first, "--output-dir", tmp_path / "first") == 0
    then = settings_file(tmp_path, other, trainer={"resume_from_checkpoint": str(tmp_path / "first")})
    assert neobert("pretrain", "--config", then, "--output-dir", tmp_path / "then") == 1
    assert "was trained on other data, or on the same in another form: its text" in capfd.readouterr().err


def _steps(trial: Path) -> int:
    """The last step in metrics.jsonl, of which the last line may be half written."""
    try:
        lines = (trial / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["step"] if lines else 0
