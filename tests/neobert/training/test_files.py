"""A trial's files are whole at every moment, and standard JSON."""

from __future__ import annotations

import json
import math
import re
import resource
from pathlib import Path

import pytest

from neobert.training import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    files.write_json(path, {"step": 1})

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"step": 2})
    assert json.loads(path.read_text()) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_says_which_file_it_is_about(tmp_path: Path) -> None:
    full = tmp_path / "metrics.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"File too large: '{full}'")):
            files.append_json_line(full, {"step": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(OSError, match=re.escape(f"No such file or directory: '{tmp_path / 'no' / 'progress.json'}'")):
        files.write_json(tmp_path / "no" / "progress.json", {"step": 1})


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_json_line(path, {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert path.read_text() == '{"a": null, "b": [null, 1.5], "c": {"d": null}}\n'


def test_lines_after_the_resumed_step_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.drop_lines_after(path, 5)
    assert not path.exists()
    for step in (1, 5, 5, 6, 10):
        files.append_json_line(path, {"step": step})
    with path.open("ab") as file:
        file.write(b'null\n{}\n{"step": null}\n[]\n\xff\n\0\0\n{"step": 1')  # what crashes have left behind
    files.drop_lines_after(path, 5)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 5, 5]
    files.append_json_line(path, {"step": 6})
    assert path.read_text().endswith('{"step": 5}\n{"step": 6}\n')
