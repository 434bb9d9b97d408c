"""Tests do not depend on the shell that starts them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.environment import PLACE, clean


def test_what_would_change_a_test_is_taken_out_and_the_rest_stays() -> None:
    stays = {
        "PATH": "/bin",
        "PIP_INDEX_URL": "x",
        "https_proxy": "p",
        "CUDA_VISIBLE_DEVICES": "0",
        "NEOBERT_TEST_DATA": "d",
    }
    goes = ("SLURM_JOB_ID", "SBATCH_PARTITION", "RANK", "RECIPE_ATTEMPT", "HF_HUB_OFFLINE", "GIT_DIR", "FORCE_COLOR")
    environment = stays | dict.fromkeys(goes, "1")
    clean(environment)
    assert stays.items() <= environment.items()
    assert not set(goes) & set(environment)


def test_this_session_keeps_its_caches_to_itself() -> None:
    caches = [Path(os.environ[name]) for name in ("HF_HOME", "NEOBERT_CACHE")]
    assert all(path.is_relative_to(PLACE.name) for path in caches)
