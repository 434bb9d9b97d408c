"""Which cores are near a GPU, as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from neobert.training.affinity import near


@pytest.mark.parametrize(
    ("text", "cores"), [("0-3\n", {0, 1, 2, 3}), ("48-49,176-177\n", {48, 49, 176, 177}), ("5\n", {5}), ("\n", set())]
)
def test_the_kernels_list_of_cores_is_read(tmp_path: Path, text: str, cores: set[int]) -> None:
    (tmp_path / "0000:07:00.0").mkdir()
    (tmp_path / "0000:07:00.0" / "local_cpulist").write_text(text)
    assert near("0000:07:00.0", tmp_path) == cores


def test_without_a_word_of_the_kernel_there_is_nothing_to_bind_to(tmp_path: Path) -> None:
    assert near("0000:07:00.0", tmp_path) == set()
