"""What the launcher costs: start-up, planning, a look at a run, and submitting, beside peers where there are any.

    python -m benchmarks.launcher            start-up, planning, and a look at a run
    python -m benchmarks.launcher --slurm    submission as well: needs root on Debian, starts the test cluster

Times are medians; on a busy machine only the ratios say something.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = Path(sys.executable).with_name("recipe")
SWEEP = """
name: sweep
task: glue
resources: {mem: 10M, time: 00:01:00}
config: {data: {generated: 100}, model: {allow_random_weights: true}}
grid:
  task_name: [cola, rte]
  seed: "{{ range(vars.seeds) }}"
"""

SUBMITIT = """
import sys, submitit
def nothing(number): return number
executor = submitit.SlurmExecutor(folder=sys.argv[1])
executor.update_parameters(time=1, mem="10MB", array_parallelism=1)
print(len(executor.map_array(nothing, range(1000))))
"""


def seconds(command: list[str], env: Mapping[str, str] | None = None) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - begin


def in_turn(first: Callable[[], float], second: Callable[[], float], runs: int) -> tuple[float, float, float]:
    """Medians of both, and of the ratio pair by pair, after one warm-up of each."""
    first(), second()
    pairs = [(first(), second()) for _ in range(runs)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def start_up() -> None:
    ours, peer, ratio = in_turn(
        lambda: seconds([str(RECIPE), "--help"]), lambda: seconds([sys.executable, "-c", "import click, yaml"]), runs=15
    )
    print(f"recipe --help             {ours:.3f} s   python -c 'import click, yaml'  {peer:.3f} s   ratio {ratio:.2f}")


def planning(directory: Path) -> None:
    file = directory / "sweep.yaml"
    file.write_text(SWEEP)
    command = [str(RECIPE), "plan", str(file), "--set", "vars.seeds=5000"]
    times = [seconds(command) for _ in range(5)]
    peak = peak_megabytes(command)
    print(f"recipe plan, 10,000 trials {statistics.median(times):.2f} s   peak memory {peak:.0f} MB")


def status(directory: Path) -> None:
    """A look at 5,000 trials that are done, when all of them were submitted once and nine times."""
    file = directory / "sweep.yaml"
    file.write_text(SWEEP)
    env = {**os.environ, "PATH": f"{_empty_queue(directory)}:{os.environ['PATH']}"}
    runs = ["--runs", str(directory / "runs")]
    seconds([str(RECIPE), "render", str(file), "--cluster", "testcluster", "--set", "vars.seeds=2500", *runs], env)
    (manifest,) = (directory / "runs").glob("sweep/*/manifest.jsonl")
    run = manifest.parent
    _finish_trials(run)
    (job,) = (run / "stages/glue").iterdir()
    entry = json.loads((run / "submissions.jsonl").read_text())
    medians = []
    for submissions in (1, 9):
        for number in range(submissions):
            shutil.copytree(job, job.with_name(f"{number:08x}"), dirs_exist_ok=True)
        entries = [entry | {"directory": f"{n:08x}", "comment": str(n), "id": str(n), "tasks": 5000, "offset": 0,
                            "time": n, "rendered": False} for n in range(submissions)]  # fmt: skip
        (run / "submissions.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        medians.append(statistics.median(seconds([str(RECIPE), "status", *runs], env) for _ in range(5)))
    once, nine = medians
    print(f"recipe status, 5,000 trials {once:.2f} s   after nine submissions {nine:.2f} s   ratio {nine / once:.2f}")


def _empty_queue(directory: Path) -> Path:
    """A directory with a squeue that has nothing to tell."""
    squeue = directory / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(0o755)
    return squeue.parent


def _finish_trials(run: Path) -> None:
    result = {"task": "glue", "metric": "accuracy", "score": 0.5, "metrics": {"accuracy": 0.5}, "seconds": 1.0}
    attempt = [{"attempt": 1, "job": "0_0", "node": "n", "start": 1.0}, {"attempt": 1, "exit_code": 0, "end": 2.0}]
    for line in (run / "manifest.jsonl").read_text().splitlines():
        trial = run / "trials" / json.loads(line)["id"]
        trial.mkdir(parents=True)
        (trial / "result.json").write_text(json.dumps(result))
        (trial / "attempts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in attempt))


def peak_megabytes(command: list[str]) -> float:
    pid = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def submitting(directory: Path) -> None:
    """1,000 trials by us and 1,000 trivial functions by submitit, on the same test cluster."""
    sys.path.insert(0, str(ROOT))
    from tests.cluster import Cluster

    cluster = Cluster(directory / "c", accounting=False)
    cluster.up()
    try:
        env = {**os.environ, **cluster.env}
        file = directory / "thousand.yaml"
        file.write_text(SWEEP)
        profile = directory / "cluster.yaml"
        profile.write_text(json.dumps({"backend": "sbatch", "python": "/bin/true"}))
        script = directory / "peer.py"
        script.write_text(SUBMITIT)
        count = iter(range(100))

        def submissions() -> int:
            text = cluster.run(["sdiag"])
            found = re.search(r"REQUEST_SUBMIT_BATCH_JOB\s*\(\s*\d+\)\s*count:(\d+)", text)
            return int(found[1]) if found else 0

        def ours() -> float:
            runs = directory / f"ours-{next(count)}"
            options = ["--cluster", str(profile), "--runs", str(runs), "--set", "vars.seeds=500"]
            taken = seconds([str(RECIPE), "submit", str(file), *options, "--set", "array.parallel=1"], env)
            cluster.cancel_all()
            return taken

        def theirs() -> float:
            taken = seconds([sys.executable, str(script), str(directory / f"peer-{next(count)}")], env)
            cluster.cancel_all()
            return taken

        before = submissions()
        ours()
        print(f"recipe submit, 1,000 trials: {submissions() - before} SUBMIT RPC, {files(directory / 'ours-0')} files")
        theirs()
        print(f"submitit map_array of 1,000: {files(directory / 'peer-1')} files")
        a, b, ratio = in_turn(ours, theirs, runs=5)
        print(f"recipe submit, 1,000      {a:.2f} s   submitit map_array of 1,000     {b:.2f} s   ratio {ratio:.2f}")
    finally:
        cluster.down()


def files(directory: Path) -> int:
    return sum(path.is_file() for path in directory.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slurm", action="store_true", help="start the test cluster and measure submission too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b") as name:
        Path(name).chmod(0o755)  # the test cluster's munge wants its socket within everybody's reach
        start_up()
        planning(Path(name))
        status(Path(name))
        if options.slurm:
            submitting(Path(name))


if __name__ == "__main__":
    main()
