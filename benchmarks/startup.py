"""From the start of an attempt in its array task to the first training step, for each trial of some runs.

    python -m benchmarks.startup runs/NAME/RUN [...]

Times are those that the job script and the trial note themselves, in attempts.jsonl and metrics.jsonl.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from slurm.rundir import RunDir, read_log


def seconds_to_first_step(run: RunDir) -> list[float]:
    """One figure for each trial that has logged its first step."""
    found = []
    for row in read_log(run.manifest):
        trial = run.trial(row["id"])
        starts = [line["start"] for line in read_log(trial.attempts) if "start" in line]
        steps = [line["time"] for line in read_log(trial.path / "metrics.jsonl") if line.get("step") == 1]
        if starts and steps:
            found.append(steps[0] - starts[0])
    return found


def main() -> None:
    for name in sys.argv[1:]:
        found = seconds_to_first_step(RunDir(Path(name)))
        if found:
            span = f"{min(found):.1f} to {max(found):.1f} s, median {statistics.median(found):.1f} s"
            print(f"{name}: {len(found)} trials, {span}")


if __name__ == "__main__":
    main()
