"""Fine-tuning on GLUE: `neobert glue` against Hugging Face's run_glue flow, with its defaults and its best options.

    python -m benchmarks.glue GLUE_DIRECTORY MODEL [--tasks rte cola] [--seeds 5] [--epochs 1] [--threads 1]

Each training is a process of its own, on the same files, with the same batch size, learning rate, schedule and epochs.
Of each seed, all ways run one after another in random order; ratios are medians of those of single seeds, so that
whatever else the machine does hits all alike. Ways that are only there for their rate (padding to 128; bf16) do a few
steps. Caches of tokenised texts are kept from seed to seed, for all.

The first step, with all that warms up in it, counts in no rate. Ratios are those of real tokens, without padding: a few
steps of an order by length are the longest texts of all, of which fewer are done in a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neobert.config import GlueConfig
from neobert.data.glue_tasks import TASKS, GlueTask
from neobert.data.sources import load_splits
from neobert.training import metrics

OURS, DEFAULT, GROUPED = "neobert glue", "Trainer, padded to 128", "Trainer, dynamic, grouped"
IN_BF16 = f"{GROUPED}, bf16"
PEERS = {DEFAULT: ["--pad"], GROUPED: ["--group"], IN_BF16: ["--group", "--bf16"]}
SCORED = (OURS, IN_BF16 if torch.cuda.is_available() else GROUPED)
"""With the best options of this machine; the others do a few steps, for their rate."""
LR = 1e-4


@dataclass(frozen=True)
class Training:
    """`start` is from the process's start to the end of the first step, in seconds; `memory` its peak, in GB.

    `samples` and `tokens`, which are real ones, are those of a second, from the end of the first step on.
    """

    samples: float
    tokens: float
    start: float
    memory: float
    score: float | None


def main() -> None:
    options = _options()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        caches = {"NEOBERT_CACHE": f"{directory}/tokens", "HF_HOME": f"{directory}/huggingface", "HF_HUB_OFFLINE": "1",
                  "OMP_NUM_THREADS": str(options.threads)}  # fmt: skip
        for name in options.tasks:
            task = TASKS[name]
            files = Path(directory, name)
            _write_files(files, options.glue, task)
            found: dict[str, list[Training]] = {}
            for seed in range(options.seeds):
                ways = [way for way in (OURS, *PEERS) if seed < options.rate_seeds or way in SCORED]
                for way in random.Random(seed).sample(ways, len(ways)):
                    out = Path(tempfile.mkdtemp(dir=directory))
                    train = _ours if way == OURS else _peer(PEERS[way], whole=way in SCORED)
                    found.setdefault(way, []).append(train(task, files, out, seed, options, {**os.environ, **caches}))
                    print(f"{name}, seed {seed}: {way}: {found[way][-1]}", file=sys.stderr)
            report[name] = _print_table(task, found)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _write_files(directory: Path, glue: Path, task: GlueTask) -> None:
    """The task's examples as files that both read."""
    config = GlueConfig.model_validate({"task_name": task.name, "data": {"dir": str(glue)},
                                        "model": {"name_or_path": "-"}})  # fmt: skip
    splits = load_splits(config.data, task.name)
    directory.mkdir()
    for name, examples in (("train", splits.train), ("dev", splits.dev[""])):
        with (directory / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"sentence{n}" for n in range(1, len(task.sentences) + 1)), "label"])
            writer.writerows((*texts, int(label)) for texts, label in zip(examples.texts, examples.labels, strict=True))


# -- trainings --------------------------------------------------------------------------------------------------------


def _ours(
    task: GlueTask, files: Path, out: Path, seed: int, options: argparse.Namespace, environment: Mapping[str, str]
) -> Training:
    trainer = {"num_train_epochs": options.epochs, "per_device_train_batch_size": options.batch_size,
               "mixed_precision": "auto", "metric_for_best_model": task.scored[0]}  # fmt: skip
    config = {  # without task_name: the classes of these files are numbers, as Trainer wants them
        "seed": seed,
        "model": {"name_or_path": options.model},
        "data": {"train_file": str(files / "train.csv"), "validation_file": str(files / "dev.csv")},
        "optimizer": {"lr": LR, "weight_decay": 0.0},
        "scheduler": {"warmup_steps": 0.0},
        "trainer": trainer,
    }
    (out / "settings.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "neobert",
        "glue",
        "--config",
        str(out / "settings.json"),
        "--output-dir",
        str(out),
    ]
    began, memory = _run(command, environment)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "samples_per_second" in line]
    examples = json.loads((out / "all_results.json").read_text())["train_samples"]
    found = json.loads((out / "result.json").read_text())["metrics"]
    rates = rates_after_first_step(logged, examples, options.batch_size)
    return Training(*rates, logged[0]["time"] - began, memory, found[task.scored[0]])


def rates_after_first_step(
    logged: Sequence[Mapping[str, float]], examples: int, batch_size: int
) -> tuple[float, float]:
    """Examples and tokens per second, of lines with the rates since the line before; the first is of step 1 alone."""
    per_epoch = math.ceil(examples / batch_size)

    def done(step: int) -> int:
        """Examples up to the end of a step: an epoch's last batch may be a small one."""
        epochs, steps = divmod(step, per_epoch)
        return epochs * examples + steps * batch_size

    if len(logged) < 2:
        sys.exit(f"a training of {examples} examples in batches of {batch_size} is too short to tell its rate")
    samples = tokens = seconds = 0.0
    for before, line in pairwise(logged):
        size = done(int(line["step"])) - done(int(before["step"]))
        samples += size
        seconds += size / line["samples_per_second"]
        tokens += size / line["samples_per_second"] * line["tokens_per_second"]
    return samples / seconds, tokens / seconds


def _peer(arguments: Sequence[str], whole: bool) -> Callable[..., Training]:
    def train(
        task: GlueTask, files: Path, out: Path, seed: int, options: argparse.Namespace, environment: Mapping[str, str]
    ) -> Training:
        command = [
            sys.executable, "-m", "benchmarks.run_glue_flow", files, options.model, out, *arguments, "--seed", seed,
            "--threads", options.threads, "--epochs", options.epochs, "--batch-size", options.batch_size, "--lr", LR,
            *(() if whole else ("--max-steps", options.steps)),
        ]  # fmt: skip
        began, memory = _run([str(word) for word in command], environment)
        found = json.loads((out / "flow.json").read_text())
        score = None
        if whole:
            measured = metrics.compute(task, np.array(found["logits"]), np.array(found["labels"]))
            score = measured[task.scored[0]]
        samples, tokens = (found[name] / found["seconds"] for name in ("samples", "tokens"))
        return Training(samples, tokens, found["first_step"] - began, memory, score)

    return train


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """When it began, and its peak memory in GB; ends the benchmark if it fails."""
    began = time.time()
    process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{printed.decode()}")
    return began, usage.ru_maxrss * resource.getpagesize() / 4096 / 2**20


# -- report -----------------------------------------------------------------------------------------------------------


def _print_table(task: GlueTask, found: Mapping[str, Sequence[Training]]) -> dict[str, Any]:
    print(f"\n{task.name}: {task.scored[0]}\n")
    print(f"{'':34}{'samples/s':>10}{'tokens/s':>10}{'ours is':>9}{'first step':>12}{'memory':>9}  scores")
    report: dict[str, Any] = {}
    for way, trainings in found.items():
        samples, tokens, start, memory = (statistics.median(getattr(t, name) for t in trainings)
                                          for name in ("samples", "tokens", "start", "memory"))  # fmt: skip
        ratio = statistics.median(ours.tokens / t.tokens for ours, t in zip(found[OURS], trainings, strict=False))
        scores = [t.score for t in trainings if t.score is not None]
        spread = f"{statistics.mean(scores):.4f} +- {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        print(f"{way:34}{samples:10.1f}{tokens:10.0f}{ratio:8.2f}x{start:10.1f} s{memory:6.2f} GB  {spread}")
        report[way] = {"samples_per_second": samples, "tokens_per_second": tokens, "ours_is_times": ratio,
                       "seconds_to_first_step": start, "peak_memory_gb": memory, "scores": scores}  # fmt: skip
    return report


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glue", type=Path, help="directory of RTE/, CoLA/, ...")
    parser.add_argument("model", help="directory of a BERT")
    parser.add_argument("--tasks", nargs="*", default=["rte", "cola"], choices=[t for t in TASKS if TASKS[t].labels])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate-seeds", type=int, default=1, help="of the ways that do a few steps")
    parser.add_argument("--steps", type=int, default=4, help="of these ways")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
