"""Takes the place of `python -m neobert trial` in tests of the launcher: a few steps, then a result.

What it does, it is told by the trial's seed and by the environment: STAND_IN_STEPS steps of 0.05 s each; the seeds of
STAND_IN_FAIL fail with exit code 3, those of STAND_IN_FAIL_EARLY at once, until there is a file `mended`; saving takes
STAND_IN_SAVE_SECONDS, and its first start STAND_IN_START_SECONDS in which no signal is caught. It keeps its step in a
file, stops with 85 at SIGUSR2 or SIGTERM, and goes on from there when it is started again.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

assert sys.argv[1:4] == ["-m", "neobert", "trial"], sys.argv
options = dict(zip(sys.argv[4::2], sys.argv[5::2], strict=True))
trial = json.loads(Path(options["--manifest"]).read_text().splitlines()[int(options["--index"])])
directory = Path(options["--output-dir"])
seed = trial["config"]["seed"]
starting = float(os.environ.get("STAND_IN_START_SECONDS", "0"))
if starting and not (directory / "started").exists():
    (directory / "started").touch()
    time.sleep(starting)
stopped = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.append(True))

saved = directory / "step"
start = step = int(saved.read_text()) if saved.exists() else 0
total = int(os.environ.get("STAND_IN_STEPS", "4"))
print(f"trial {trial['id']} starts at step {step}", flush=True)
while step < total:
    if str(seed) in os.environ.get("STAND_IN_FAIL_EARLY", "").split():
        break
    if stopped:
        time.sleep(float(os.environ.get("STAND_IN_SAVE_SECONDS", "0")))
        print(f"checkpoint at step {step}", flush=True)
        sys.exit(85)
    step += 1
    saved.write_text(str(step))
    (directory / "progress.tmp").write_text(json.dumps({"step": step, "total_steps": total, "loss": 1.0}))
    (directory / "progress.tmp").replace(directory / "progress.json")
    time.sleep(0.05)
early = str(seed) in os.environ.get("STAND_IN_FAIL_EARLY", "").split() and not (directory / "mended").exists()
if str(seed) in os.environ.get("STAND_IN_FAIL", "").split() or early:
    print("it does not work", flush=True)
    sys.exit(3)
environment = {key: os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RANK", "WORLD_SIZE")}
result = {
    "task": "glue", "score": 0.5 + seed / 10, "metric": "accuracy", "baseline": 0.4, "metrics": {"accuracy": 0.5},
    "seconds": 1.0, "started_at": start, "ended": time.time(), "environment": environment,
}  # fmt: skip
(directory / "result.tmp").write_text(json.dumps(result))
(directory / "result.tmp").replace(directory / "result.json")
