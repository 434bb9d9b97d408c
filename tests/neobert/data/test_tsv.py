"""GLUE directories are read as GLUE distributes them, and a mistake is named with its file and line."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS, GlueTask, Tsv
from neobert.data.tsv import read_glue_directory, read_tsv

MNLI_TRAIN = "\t".join(TASKS["mnli"].tsv.header)
MNLI_DEV = MNLI_TRAIN.replace("label1", "label1\tlabel2\tlabel3\tlabel4\tlabel5")


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + end for line in lines), encoding="utf-8", newline="")
    return path


def rte(path: Path, *rows: str) -> Path:
    return write(path, "index\tsentence1\tsentence2\tlabel", *rows)


def cells(path: Path, layout: Tsv, labelled: bool) -> list[dict[str, str]]:
    """The rows by another reader; those that lack columns are left out."""
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    header = None if layout.has_header or not labelled else layout.header
    rows = csv.DictReader(lines, header, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [row for row in rows if None not in row.values()]


def files(directory: Path) -> list[tuple[GlueTask, Path, bool]]:
    """Each file in a task's folder, with whether it is labelled. A real directory may lack some."""
    every = []
    for task in TASKS.values():
        assert task.tsv is not None
        labelled = {"train": True} | {file: True for _, file, _ in task.dev_sets}
        for file, has_labels in (labelled | {test.file: False for test in task.tests}).items():
            every.append((task, directory / task.tsv.folder / f"{file}.tsv", has_labels))
    return [one for one in every if one[1].is_file()]


def test_every_row_of_every_file_is_read_as_it_stands(glue_data: Path) -> None:
    assert len({task for task, _, _ in files(glue_data)}) > 1
    for task, path, labelled in files(glue_data):
        read, rows = read_tsv(path, task, labelled), cells(path, task.tsv, labelled)
        assert read.texts == [tuple(row[column] for column in task.tsv.sentences) for row in rows], path
        assert len(read.labels) == (len(rows) if labelled else 0), path


def test_bare_quotes_and_scores_are_kept_as_they_stand(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    mrpc = write(tmp_path / "mrpc.tsv", header, '1\t2\t3\tHe said "no.\t"No," he said.')
    assert list(read_tsv(mrpc, TASKS["mrpc"])) == [(('He said "no.', '"No," he said.'), 1)]
    stsb = write(tmp_path / "stsb.tsv", "index\tsentence1\tsentence2\tscore", "0\tA dog.\tA cat.\t3.800")
    assert list(read_tsv(stsb, TASKS["stsb"])) == [(("A dog.", "A cat."), 3.8)]


def test_a_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = rte(tmp_path / "train.tsv", "0\ta\tb\tentailment")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_tsv(path, TASKS["rte"])) == [(("a", "b"), 0)]


def test_the_matched_and_mismatched_sets_are_both_read(glue_data: Path) -> None:
    matched, mismatched = (
        read_tsv(glue_data / "MNLI" / f"dev_{name}.tsv", TASKS["mnli"]) for name in ("matched", "mismatched")
    )
    assert set(matched.labels) == set(mismatched.labels) == {0, 1, 2}
    assert matched.texts != mismatched.texts


def test_columns_are_found_by_name_so_dev_may_have_more_than_train(tmp_path: Path) -> None:
    write(tmp_path / "MNLI/train.tsv", MNLI_TRAIN, "0\t1\t2\tfiction\tb\tb\tp\tp\tA man.\tA dog.\tneutral\tneutral")
    row = "0\t1\t2\tfiction\tb\tb\tp\tp\tA man.\tA cat.\tneutral\tneutral\tneutral\tneutral\tentailment\tentailment"
    for name in ("dev_matched", "dev_mismatched"):
        write(tmp_path / f"MNLI/{name}.tsv", MNLI_DEV, row)
    splits = read_glue_directory(tmp_path, TASKS["mnli"])
    assert list(splits.train) == [(("A man.", "A dog."), 1)]
    assert {suffix: list(dev) for suffix, dev in splits.dev.items()} == {
        "": [(("A man.", "A cat."), 0)],
        "_mm": [(("A man.", "A cat."), 0)],
    }


def test_mnli_has_the_order_of_hugging_face_not_of_old_glue() -> None:
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize("folder", ["SST-2", "sst2", "SST2", "sst-2"])
def test_folders_are_found_however_they_are_spelt(tmp_path: Path, folder: str) -> None:
    for name in ("train", "dev"):
        write(tmp_path / folder / f"{name}.tsv", "sentence\tlabel", "fine .\t1", 'a "bad one\t0')
    splits = read_glue_directory(tmp_path, TASKS["sst2"])
    assert list(splits.train) == [(("fine .",), 1), (('a "bad one',), 0)]


def test_cola_has_no_header_line(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", "gj04\t1\t\tThey run.", "gj04\t0\t*\tThey runs.")
    assert list(read_tsv(path, TASKS["cola"])) == [(("They run.",), 1), (("They runs.",), 0)]


def test_a_line_ends_at_a_newline_alone(tmp_path: Path) -> None:
    path = rte(tmp_path / "train.tsv", "0\ta\x85b\u2028c\rd\te\tentailment")
    assert read_tsv(path, TASKS["rte"]).texts == [("a\x85b\u2028c\rd", "e")]


def test_windows_line_ends_and_closing_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment", "", "", end="\r\n")
    assert list(read_tsv(path, TASKS["rte"])) == [(("a", "b"), 0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1\tonly\tentailment", "expected 4 columns, found 3"),
        ("1\ta\tb\tc\tentailment", "expected 4 columns, found 5"),
        ("", "expected 4 columns, found 1"),
        ("1\ta\tb\tmaybe", "the label is 'maybe', which is none of rte's: entailment, not_entailment"),
        ("1\ta\tb\t", "the label is '', which is none of rte's"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = rte(tmp_path / "train.tsv", "0\ta\tb\tentailment", row, "2\ta\tb\tentailment")
    with pytest.raises(ConfigError) as caught:
        read_tsv(path, TASKS["rte"])
    assert str(caught.value).startswith(f"{path}:3: {message}")


@pytest.mark.parametrize("score", ["5.1", "-0.5", "nan", "inf", "high"])
def test_a_score_outside_zero_to_five_is_named_with_file_and_line(tmp_path: Path, score: str) -> None:
    path = write(tmp_path / "dev.tsv", "sentence1\tsentence2\tscore", "a\tb\t4.25", f"a\tb\t{score}")
    with pytest.raises(ConfigError, match=rf"dev.tsv:3: the label is '{score}', expected a number"):
        read_tsv(path, TASKS["stsb"])


def test_bytes_that_are_no_utf8_are_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tcaf\xe9\tb\tentailment\n")
    with pytest.raises(ConfigError, match=r"train.tsv:3: is not UTF-8 text \(byte 5 of the line\)"):
        read_tsv(path, TASKS["rte"])


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", "id\tsentence1\tlabel", "0\ta\tentailment")
    with pytest.raises(ConfigError, match=r"train.tsv:1: has no column sentence2; the header names id, sentence1, lab"):
        read_tsv(path, TASKS["rte"])


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no examples"):
        read_tsv(rte(tmp_path / "train.tsv"), TASKS["rte"])
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(ConfigError, match="has no column sentence1 or sentence2 or label; the header names nothing"):
        read_tsv(tmp_path / "empty.tsv", TASKS["rte"])


def test_the_broken_rows_that_qqp_is_known_for_are_skipped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, short = "1\t2\t3\ta?\tb?\t1", "1\t2\t3\ta?"
    header = "\t".join(TASKS["qqp"].tsv.header)
    with caplog.at_level(logging.WARNING):
        examples = read_tsv(write(tmp_path / "few.tsv", header, good, short, good), TASKS["qqp"])
    assert len(examples) == 2
    assert "known of QQP: 3" in caplog.text
    with pytest.raises(ConfigError, match=r"many.tsv:13: expected 6 columns, found 4"):
        read_tsv(write(tmp_path / "many.tsv", header, good, *[short] * 11), TASKS["qqp"])


def test_links_that_lead_nowhere_are_named_with_their_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container may have the directory, but not the place that a link in it leads to."""
    glue, task = tmp_path / "glue", TASKS["rte"]
    rte(tmp_path / "elsewhere/RTE/train.tsv", "0\ta\tb\tentailment")
    glue.mkdir()
    (glue / "RTE").symlink_to(tmp_path / "elsewhere/RTE")
    (glue / "RTE/dev.tsv").symlink_to(tmp_path / "gone.tsv")
    with pytest.raises(
        ConfigError, match=rf"/dev.tsv: does not exist \(.*/dev.tsv is a link to {tmp_path}/gone.tsv, whi"
    ):
        read_glue_directory(glue, task)
    (tmp_path / "elsewhere").rename(tmp_path / "not bound")
    monkeypatch.setenv("APPTAINER_CONTAINER", "neobert.sif")
    with pytest.raises(ConfigError) as caught:
        read_glue_directory(glue, task)
    target = tmp_path / "elsewhere/RTE"
    assert f"has no folder RTE ({glue}/RTE is a link to {target}, which this container does not have. " in str(
        caught.value
    )
    assert f"Add `binds: [{target}]` to the recipe" in str(caught.value)
    (tmp_path / "link").symlink_to(tmp_path / "no glue")
    with pytest.raises(ConfigError, match=rf"link: does not exist \({tmp_path}/link is a link to {tmp_path}/no glue, "):
        read_glue_directory(tmp_path / "link", task)


@pytest.mark.parametrize(("label", "hint"), [("1", "0 is entailment, 1 is not_entailment"), ("-1", "hides the label")])
def test_a_number_in_place_of_a_class_is_told_what_it_means(tmp_path: Path, label: str, hint: str) -> None:
    path = rte(tmp_path / "train.tsv", f"0\ta\tb\t{label}")
    with pytest.raises(ConfigError, match=rf"train.tsv:2: the label is '{label}', which is none of rte's: .*{hint}"):
        read_tsv(path, TASKS["rte"])


def test_what_is_missing_is_named_with_what_was_expected(tmp_path: Path) -> None:
    task = TASKS["rte"]
    with pytest.raises(ConfigError, match=r"nowhere: does not exist; data.dir must be a directory with RTE/train.tsv"):
        read_glue_directory(tmp_path / "nowhere", task)
    (tmp_path / "CoLA").mkdir()
    with pytest.raises(ConfigError, match="has no folder RTE; it holds CoLA"):
        read_glue_directory(tmp_path, task)
    rte(tmp_path / "RTE" / "train.tsv", "0\ta\tb\tentailment")
    with pytest.raises(ConfigError, match=r"RTE/dev.tsv: does not exist"):
        read_glue_directory(tmp_path, task)
    with pytest.raises(ConfigError, match=r"holds a train.tsv itself, so its parent directory may be what is meant"):
        read_glue_directory(tmp_path / "RTE", task)
