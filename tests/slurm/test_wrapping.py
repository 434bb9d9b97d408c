"""Texts in few cells."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from slurm.wrapping import flow, narrowest, shortened, two_lines, wrap

PATHS = ["/nfs/models/neobert/step-90000/model", "/nfs/models/neobert/step-100000/model"]


def test_lines_break_at_spaces_and_keep_those_within() -> None:
    assert wrap("stage glue  neobert glue · 4G", 15) == ["stage glue", "neobert glue ·", "4G"]
    assert wrap("stage glue  neobert", 80) == ["stage glue  neobert"]
    assert wrap("", 10) == [""]


def test_a_long_word_breaks_after_a_mark_and_never_in_a_number() -> None:
    assert wrap("see /nfs/models/neobert-100000/model", 16) == ["see", "/nfs/models/", "neobert-100000/", "model"]
    assert wrap("checkpoint100000", 12) == ["checkpoint", "100000"]
    assert wrap("数据集数据集", 5) == ["数据", "集数", "据集"]


def test_items_break_only_where_they_are_longer_than_a_line() -> None:
    assert flow(["lr 1e-4", "seed 1", "metric accuracy"], 16) == ["lr 1e-4 · seed 1", "metric accuracy"]
    assert flow(["model /nfs/models/neobert"], 14) == ["model", "/nfs/models/", "neobert"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("per_device_train_batch_size", ("per_device_", "train_batch_size")),
        ("optimizer.lr", ("optimizer.", "lr")),
        ("accuracy", ("accuracy",)),
        ("", ("",)),
    ],
)
def test_a_name_takes_two_lines(name: str, lines: tuple[str, ...]) -> None:
    assert two_lines(name) == lines


def test_paths_lose_their_middle_and_stay_different() -> None:
    assert shortened(PATHS, 24) == ("/nfs/mod…tep-90000/model", "/nfs/mod…ep-100000/model")


def test_what_all_texts_share_goes_where_they_differ_in_the_middle() -> None:
    texts = [f"/nfs/experiments/of/somebody/run-{run}/checkpoints/of/this/training/model" for run in "ab"]
    assert shortened(texts, 16) == ("…a/checkpoints/…", "…b/checkpoints/…")


def test_texts_that_could_not_be_told_apart_are_not_shortened() -> None:
    texts = ["x" * 30 + "1" + "y" * 30 + "2", "x" * 30 + "1" + "y" * 30 + "3", "x" * 30 + "2" + "y" * 30 + "2"]
    assert shortened(texts, 12) is None
    assert narrowest(texts) > 12


def test_a_number_is_never_shortened() -> None:
    assert shortened(["12345678901234567890"], 12) is None
    assert shortened(["[128, 256, 512, 1024, 2048]"], 16) == ("[128,…, 2048]",)


def test_accents_stay_with_their_letter() -> None:
    (shorter,) = shortened(["e\u0301" * 40], 12) or ("",)
    assert cell_len(shorter) <= 12
    assert "…\u0301" not in shorter
