"""A site for the tests of what must survive: the real cluster, the real CPU image, and trials that really train.

Where no image can be built, trials run on the host, and only what is about containers is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from neobert.data.grammar import document, write_glue_directory
from slurm.rundir import RunDir, TrialDir, read_log
from slurm.state import RunState, State, TrialState, run_state
from tests.cluster import Cluster
from tests.containers import requirements

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = {
    "task_name": "rte",
    "data": {"max_train_samples": 512, "max_eval_samples": 32, "max_length": 64},
    "model": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
              "vocab_size": 4000, "allow_random_weights": True},
    "optimizer": {"lr": 1e-3},
    "trainer": {"per_device_train_batch_size": 8, "num_train_epochs": 1000, "eval_strategy": "steps",
                "eval_steps": 100, "use_cpu": True, "keep": "all"},
}  # fmt: skip
Weights = dict[str, torch.Tensor]


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


PATIENCE = 3
"""How much slower a busy machine may be than an idle one."""


def wait_until(reached: Callable[[], Any], seconds: float, what: Callable[[], object] | str) -> Any:
    """What `reached` gives as soon as it is something; `seconds` are those of an idle machine."""
    deadline = time.monotonic() + PATIENCE * seconds
    while not (value := reached()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.05)
    return value


def weights(trial: TrialDir, step: int) -> Weights:
    return load_file(trial.path / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def same(one: Weights, other: Weights, tolerance: float = 0.0) -> bool:
    """Whether all weights are equal, bit for bit or up to an absolute difference."""
    assert one.keys() == other.keys()
    return all(
        torch.equal(one[name], other[name])
        if tolerance == 0
        else torch.allclose(one[name], other[name], atol=tolerance, rtol=0)
        for name in one
    )


def logged_alike(trial: TrialDir, undisturbed: TrialDir) -> bool:
    """Whether no line of metrics.jsonl stands twice or out of order, and none is missing.

    A checkpoint that was asked for brings a line of its own, between those that are due.
    """
    found, due = ([row["step"] for row in read_log(t.path / "metrics.jsonl") if "loss" in row]
                  for t in (trial, undisturbed))  # fmt: skip
    return found == sorted(set(found)) and set(due) <= set(found)


@dataclass
class Site:
    """Recipes are written, submitted with the command `recipe`, and looked at through its files and its states."""

    cluster: Cluster
    work: Path
    glue: Path
    image: Path | str | None
    """None: trials run on the host."""
    measured: list[tuple[str, float]] = field(default_factory=list)

    def recipe(
        self, config: dict[str, Any] | None = None, *, seeds: tuple[int, ...] = (1,), steps: int = 600, **keys: Any
    ) -> Path:
        """A sweep over seeds; `keys` are the recipe's own (resources, array, ...)."""
        data = {
            **self.base(),
            "task": "glue",
            "config": merged(CONFIG, {"data": {"dir": str(self.glue)}, "trainer": {"max_steps": steps}}),
            "grid": {"seed": list(seeds)},
        }
        path = self.work / "sweep.yaml"
        path.write_text(yaml.safe_dump(merged(merged(data, {"config": config or {}}), keys)))
        return path

    def base(self) -> dict[str, Any]:
        """What all recipes begin with."""
        image = {"image": str(self.image)} if self.image else {}
        return {"name": "sweep", **image, "resources": {"cpus": 1, "mem": "2G", "time": "00:20:00"}}

    def call(self, *words: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "slurm.cli", *map(str, words)], capture_output=True, text=True, cwd=self.work,
            env={**self.cluster.env, "PYTHONPATH": str(REPOSITORY)}, timeout=300,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stderr + done.stdout
        return done

    def site_file(self, **changes: Any) -> Path:
        path = self.work / "site.yaml"
        profile = {
            "backend": "sbatch",
            "partition": "main",
            "container": {"runtime": "apptainer" if self.image else "none"},
            "signal_seconds": 30,
            "max_requeues": 3,
        }
        path.write_text(json.dumps(merged(profile, changes)))
        return path

    def submit(self, recipe: Path, *options: object, **profile: Any) -> RunDir:
        self.call("submit", recipe, "--cluster", self.site_file(**profile), *options)
        return self.run()

    def run(self) -> RunDir:
        return RunDir(max((self.work / "runs/sweep").glob("2*"), key=lambda path: path.name))

    def state(self) -> RunState:
        return run_state(self.run())

    def trial(self, place: int = 0) -> TrialState:
        return self.state().trials[place]

    def files(self, place: int = 0) -> TrialDir:
        run = self.run()
        return run.trial(read_log(run.manifest)[place]["id"])

    def job(self, place: int = 0) -> str:
        """The name of the array task that a trial was last given to, as scontrol knows it."""
        lines = [row for row in read_log(self.run().submissions) if row["id"]]
        return f"{lines[-1]['id']}_{place}" if lines[-1]["array"] else lines[-1]["id"]

    def node(self, place: int = 0) -> str:
        return [row["node"] for row in read_log(self.files(place).attempts) if "node" in row][-1]

    def step(self, place: int = 0) -> int:
        path = self.files(place).progress
        return json.loads(path.read_text())["step"] if path.exists() else 0

    def wait_step(self, step: int, place: int = 0, seconds: float = 120) -> None:
        wait_until(lambda: self.step(place) >= step, seconds, lambda: self.log(place))

    def attempts(self, place: int = 0) -> int:
        return max((row["attempt"] for row in read_log(self.files(place).attempts)), default=0)

    def log(self, place: int = 0) -> str:
        logs = sorted((self.files(place).path / "logs").glob("*.log"))
        return "\n".join([str(self.trial(place)), *(log.read_text(errors="replace") for log in logs)])

    def wait_ended(self, seconds: float = 240) -> RunState:
        seen: list[RunState] = []

        def ended() -> bool:
            seen.append(self.state())
            return seen[-1].ended

        wait_until(ended, seconds, lambda: "\n".join(map(str, seen[-1].trials)) + self.log())
        for trial in seen[-1].trials:
            if trial.state is State.DONE:  # the result is there a moment before the job script notes the end
                lines = seen[-1].run.trial(trial.id).attempts
                wait_until(lambda lines=lines: "end" in read_log(lines)[-1], 30, lambda: self.log())
        return seen[-1]

    def measure(self, case: str, since: float) -> None:
        """Notes how long something took, for the summary at the end."""
        self.measured.append((case, time.time() - since))


MEASURED = pytest.StashKey[list[tuple[str, float]]]()


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RTE with first sentences that fill `data.max_length`, so that a step takes as long as on GLUE's own file."""
    directory = tmp_path_factory.mktemp("glue")
    folder = write_glue_directory(directory, "rte", CONFIG["data"]["max_train_samples"])
    for path in (folder / "train.tsv", folder / "dev.tsv"):
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        longer = ["\t".join((index, f"{document(int(index))} {one}", *rest)) for index, one, *rest in rows]
        path.write_text("\n".join([header, *longer, ""]), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Path | None:
    """The CPU image; None where there can be none, and trials run on the host."""
    if requirements.missing_for_cpu_image() and not os.environ.get("CI"):
        return None
    built: Path = request.getfixturevalue("cpu_image")
    return built


@pytest.fixture
def site(
    cluster: Cluster, glue: Path, image: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Site:
    enter(cluster, tmp_path, monkeypatch)
    return Site(cluster, tmp_path, glue, image, request.config.stash.setdefault(MEASURED, []))


def enter(cluster: Cluster, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process one that works on the cluster's login node, in `work`."""
    for key, value in cluster.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(work)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, glue: Path) -> Callable[..., TrialDir]:
    """A training that nothing disturbs, outside of container and Slurm; each is done once for all tests."""
    done: dict[str, TrialDir] = {}

    def train(config: dict[str, Any] | None = None, *, seed: int = 1, steps: int = 600, processes: int = 1) -> TrialDir:
        settings = merged(CONFIG, {"seed": seed, "data": {"dir": str(glue)}, "trainer": {"max_steps": steps}})
        text = yaml.safe_dump(merged(settings, config or {}))
        key = f"{processes} {text}"
        if key not in done:
            directory = tmp_path_factory.mktemp("reference")
            (directory / "config.yaml").write_text(text)
            _train(directory, processes)
            done[key] = TrialDir(directory / "trial")
        return done[key]

    return train


def _train(directory: Path, processes: int) -> None:
    words = [sys.executable, "-m", "neobert", "glue", "--config", "config.yaml", "--output-dir", "trial"]
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "RECIPE_"))}
    base |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    children = []
    for rank in range(processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": "29417", "LOCAL_WORLD_SIZE": str(processes)} if processes > 1 else {}  # fmt: skip
        with (directory / f"log-{rank}").open("w") as log:
            children.append(
                subprocess.Popen(words, cwd=directory, env=base | ranks, stdout=log, stderr=subprocess.STDOUT)
            )
    for child in children:
        assert child.wait(timeout=500) == 0, "\n".join(path.read_text() for path in directory.glob("log-*"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for case, seconds in config.stash.get(MEASURED, []):
        terminalreporter.write_line(f"{seconds:6.1f} s  {case}")
