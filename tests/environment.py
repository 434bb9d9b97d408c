"""The environment that all tests start from, whatever the shell, job or hook is that runs them.

What is not listed stays: how the machine reaches a package index, where a compiler is, which GPUs are visible.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping

CHANGING = (
    "APPTAINERENV_", "BASH_ENV", "BASH_FUNC_", "COLUMNS", "FORCE_COLOR", "GIT_", "HF_", "LANGUAGE", "LC_", "LINES",
    "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_", "NEOBERT_", "NO_COLOR", "PYTHONUNBUFFERED", "PYTHONWARNINGS",
    "RANK", "RECIPE_", "SACCT_", "SBATCH_", "SINGULARITYENV_", "SLURM", "SQUEUE_", "TRANSFORMERS_", "WORLD_SIZE",
)  # fmt: skip
"""What the names begin with of variables that would change what tests see."""

KEPT = ("NEOBERT_TEST_DATA",)

PLACE = tempfile.TemporaryDirectory(prefix="neobert-tests-")
"""For the caches of this session, which neither reads nor fills those of the user. It goes when Python ends."""


def clean(environment: MutableMapping[str, str]) -> None:
    """Takes out what the tests must not depend on, and puts in what they all need."""
    for name in [name for name in environment if name.startswith(CHANGING) and name not in KEPT]:
        del environment[name]
    environment.update({
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": os.devnull,  # hooks and signatures of the user's own
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HF_HOME": f"{PLACE.name}/huggingface",
        "NEOBERT_CACHE": f"{PLACE.name}/neobert",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",  # several of these run at once on few cores
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # as the command itself does
    })  # fmt: skip
