"""One trial, or a shell, in the container here and now: what `recipe exec` and `recipe shell` do."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from neobert.config import TASKS, ConfigError, named_paths, set_at
from neobert.config.paths import Role
from slurm.cluster import Profile
from slurm.container import argv
from slurm.plan import RUN, Plan, Stage, Trial, label
from slurm.provenance import snapshot_code
from slurm.render import enter
from slurm.rundir import EXEC, RunDir, access, write_atomically
from slurm.schema import OF_PROCESS
from slurm.session import Session
from slurm.submit import make_job


def enter_trial(session: Session, selector: str | None, command: Sequence[str], verb: str) -> NoReturn:
    """Becomes the container's process. `verb` is exec, shell, or print (which tells the command and runs nothing).

    A trial's files go to a directory of their own, not to those of a run: what is tried out here is no result of it.
    Raises `ConfigError`.
    """
    session.check()
    stage, trial = find_trial(session.plan, selector)
    profile = with_scratch_here(session.plan.profile)
    place = session.runs / session.plan.name / EXEC
    _script(session, profile, stage, RunDir(place / "new"), None)  # what is wrong shows before anything is written
    directory = new_directory(place, session.plan.profile.runs_mode)
    code = None if session.image_code else snapshot_code(directory)
    text = _script(session, profile, stage, directory, code)
    script, manifest, output = directory.path / "enter.sh", directory.path / "trials.jsonl", directory.trial(trial.id)
    write_atomically(script, text)
    write_atomically(manifest, _apart(trial, directory).manifest_line(session.find_run().path))
    default = ["python3", "-m", "neobert", "trial", "--manifest", str(manifest), "--index", "0",
               "--output-dir", str(output.path)]  # fmt: skip
    _tell(stage, trial, output.path, verb, bool(command))
    words = argv(script, [] if verb == "shell" else list(command) or default)
    environment = {key: value for key, value in os.environ.items() if key not in OF_PROCESS}
    environment |= {**stage.env, "RECIPE_VERB": verb}
    sys.stdout.flush()
    os.execvpe(words[0], words, environment)


def _apart(trial: Trial, directory: RunDir) -> Trial:
    """The trial with `directory` in place of the run's for all that it makes; what it reads is the run's."""
    config = json.loads(trial.config)
    for path in named_paths(TASKS[trial.task].model_validate_json(trial.config)):
        if path.role is Role.OUTPUT and path.value.startswith(RUN):
            set_at(config, tuple(map(str, path.key)), path.value.replace(RUN, str(directory.path)))
    return replace(trial, config=json.dumps(config, ensure_ascii=False))


def _script(session: Session, profile: Profile, stage: Stage, directory: RunDir, code: Path | None) -> str:
    job = make_job(session.plan, stage, 1, directory, session.backend, code)
    run = directory.path.parents[1]  # where earlier stages' trials lie too
    text = enter(replace(job, profile=profile, directory=directory.path, run=run))
    if text is None:
        raise ConfigError(
            f"stage {stage.name} runs in no container: the recipe needs an `image`, and the cluster profile "
            f"'{session.plan.cluster}' a `container.runtime` (--cluster chooses another profile)"
        )
    return text


def with_scratch_here(profile: Profile) -> Profile:
    """The profile, without its scratch directory where that is one of jobs and this is a login node."""
    if profile.scratch is None or os.access(os.path.expandvars(profile.scratch), os.W_OK | os.X_OK):
        return profile
    print(f"there is no scratch directory {profile.scratch} here: TMPDIR (or /tmp) takes its place", file=sys.stderr)
    return profile.model_copy(update={"scratch": None})


def new_directory(place: Path, runs_mode: str | None) -> RunDir:
    """A directory of the second, and of nobody else who starts something in the same second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        directory = place / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            with access(runs_mode):
                directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return RunDir(directory)


def find_trial(plan: Plan, selector: str | None) -> tuple[Stage, Trial]:
    """A trial by its place in the plan (from 0) or by the beginning of its id; the first one by default.

    A number that is a place is never taken for a beginning: ids are hashes, and many begin with a digit.
    """
    if selector is None:
        return plan.trials[0]
    if re.fullmatch("0|[1-9][0-9]*", selector) and int(selector) < len(plan.trials):
        return plan.trials[int(selector)]
    found = [pair for pair in plan.trials if pair[1].id.startswith(selector)]
    if len(found) == 1:
        return found[0]
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
