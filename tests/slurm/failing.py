"""Takes the place of `python -m neobert trial` in tests of how failures are told.

The rank FAIL_RANK fails as FAIL_HOW says: `message`, `traceback`, `kill`, `abort`, `unfit` (its node lacks something),
`unfit-by-name` (for a reason of each node's own) or `never`. All others step on, and end with 85 when told to stop.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

rank, node = int(os.environ.get("SLURM_PROCID", "0")), os.environ.get("SLURMD_NODENAME", "here")
prefix = f"[rank {rank}] " if rank else ""
directory = Path(sys.argv[sys.argv.index("--output-dir") + 1])
how = os.environ["FAIL_HOW"]


def unfit(reason: str) -> None:
    record = {"schema": 1, "attempt": int(os.environ["RECIPE_ATTEMPT"]), "nodes": [node]}
    text = json.dumps({**record, "message": f"{node}: {reason} (here)", "reason": reason})
    (directory / "preflight.json").write_text(text + "\n")
    sys.exit(87)


def fail() -> None:
    if how == "message":
        print(f"{prefix}neobert: bad row {rank}", file=sys.stderr, flush=True)
        sys.exit(2)
    if how == "traceback":
        lines = ["Traceback (most recent call last):", '  File "a.py", line 7', f"ValueError: of rank {rank}"]
        print("\n".join(prefix + line for line in lines), file=sys.stderr, flush=True)
        sys.exit(1)
    if how == "unfit":
        unfit("no GPU")
    if how == "unfit-by-name":
        unfit(f"no GPU of {node}")
    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGABRT)


stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
for step in range(1, 3000):
    if rank == 0:
        print(f"step {step}/3000 (0.1 epochs): loss 1.0", flush=True)
        (directory / "progress.tmp").write_text(json.dumps({"step": step, "total_steps": 3000}))
        (directory / "progress.tmp").replace(directory / "progress.json")
    if step == 4 and rank == int(os.environ.get("FAIL_RANK", "0")) and how != "never":
        fail()
    if stopped:
        print(f"{prefix}neobert: the others are gone", file=sys.stderr, flush=True)
        sys.exit(85)
    time.sleep(0.1)
