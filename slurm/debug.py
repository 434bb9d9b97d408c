"""One trial, or a shell, in the container here and now: what `recipe exec` and `recipe shell` do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from neobert.config import ConfigError
from slurm.container import argv
from slurm.plan import Plan, Stage, Trial, label
from slurm.provenance import snapshot_code
from slurm.render import enter
from slurm.rundir import RunDir, write_atomically
from slurm.session import Session
from slurm.submit import make_job

RANKS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS",
    "RECIPE_TRIAL", "RECIPE_ATTEMPT", "RECIPE_LEASE_WAIT", "RECIPE_NODES", "RECIPE_GPUS_PER_NODE",
)  # fmt: skip
"""What an interactive job sets, and would make the one process here take itself for one of several."""


def enter_trial(session: Session, selector: str | None, command: Sequence[str], verb: str) -> NoReturn:
    """Becomes the container's process. `verb` is exec, shell, or print (which tells the command and runs nothing).

    A trial's files go to a directory of their own, not to those of a run: what is tried out here is no result of it.
    Raises `ConfigError`.
    """
    session.check()
    stage, trial = find_trial(session.plan, selector)
    directory = RunDir(session.runs / session.plan.name / "exec" / time.strftime("%Y%m%d-%H%M%S"))
    directory.path.mkdir(parents=True, exist_ok=True)
    code = None if session.image_code else snapshot_code(directory)
    job = make_job(session.plan, stage, 1, directory, session.backend, code)
    job = replace(job, directory=directory.path, run=directory.path.parents[1])  # where earlier stages' trials lie too
    text = enter(job)
    if text is None:
        raise ConfigError(
            f"stage {stage.name} runs in no container: the recipe needs an `image`, and the cluster profile "
            f"'{session.plan.cluster}' a `container.runtime` (--cluster chooses another profile)"
        )
    script, manifest, output = directory.path / "enter.sh", directory.path / "trials.jsonl", directory.trial(trial.id)
    write_atomically(script, text)
    write_atomically(manifest, trial.manifest_line(session.find_run().path))
    default = ["python3", "-m", "neobert", "trial", "--manifest", str(manifest), "--index", "0",
               "--output-dir", str(output.path)]  # fmt: skip
    _tell(stage, trial, output.path, verb, bool(command))
    words = argv(script, [] if verb == "shell" else list(command) or default)
    environment = {key: value for key, value in os.environ.items() if key not in RANKS}
    environment |= {**stage.env, "RECIPE_VERB": verb}
    sys.stdout.flush()
    os.execvpe(words[0], words, environment)


def find_trial(plan: Plan, selector: str | None) -> tuple[Stage, Trial]:
    """A trial by its place in the plan (from 0) or by the beginning of its id; the first one by default."""
    if selector is None:
        return plan.trials[0]
    found = [pair for pair in plan.trials if pair[1].id.startswith(selector)]
    if len(found) == 1:
        return found[0]
    if selector.isdigit() and int(selector) < len(plan.trials):
        return plan.trials[int(selector)]
    what = "several trials begin" if found else "no trial begins"
    raise ConfigError(
        f"--trial {selector}: {what} so; expected 0 to {len(plan.trials) - 1} or the beginning of an id "
        "(`recipe plan RECIPE --all` lists them)"
    )


def _tell(stage: Stage, trial: Trial, output: Path, verb: str, other: bool) -> None:
    if verb == "shell" or other:
        return
    print(f"trial {trial.id} {label(trial.point)} of stage {stage.name} -> {os.path.relpath(output)}", file=sys.stderr)
    processes = stage.resources.world_size
    if processes > 1:
        print(
            f"its job has {processes} processes and this is one: the global batch is {processes} times smaller",
            file=sys.stderr,
        )
