"""submitit starts its jobs from pickles in the run's directory: whoever can write there runs code as the submitter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.backends.submitit import _check_private


@pytest.mark.parametrize("place", ["", "stages", "stages/s/12ab", "stages/s/12ab/submitit"])
def test_a_run_that_others_can_write_to_is_refused(tmp_path: Path, place: str) -> None:
    run = tmp_path / "run"
    folder = run / "stages/s/12ab/submitit"
    folder.mkdir(parents=True)
    _check_private(folder, run)
    (run / place).chmod(0o775)
    message = rf"{re.escape(str(run / place))} can be written by others \(its mode is 0775\), and submitit would run"
    with pytest.raises(ConfigError, match=message):
        _check_private(folder, run)
    (run / place).chmod(0o1777)
    with pytest.raises(ConfigError, match="mode is 1777"):
        _check_private(folder, run)


def test_a_link_in_the_place_of_its_folder_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stages/s/12ab").mkdir(parents=True)
    (run / "stages/s/12ab/submitit").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        _check_private(run / "stages/s/12ab/submitit", run)
