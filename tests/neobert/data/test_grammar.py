"""The generated data is fixed, balanced, free of leaks, and laid out like GLUE."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import DEV_ROWS, document, generated_splits, write_glue_directory
from neobert.data.tsv import read_glue_directory

ALL = pytest.mark.parametrize("name", TASKS)


@ALL
def test_it_is_read_back_from_glue_files_exactly(name: str, tmp_path: Path) -> None:
    made = generated_splits(TASKS[name], 300)
    folder = write_glue_directory(tmp_path, name, 300)
    read = read_glue_directory(tmp_path, TASKS[name])
    assert folder.parent == tmp_path
    assert (list(read.train), {k: list(v) for k, v in read.dev.items()}) == (
        list(made.train), {k: list(v) for k, v in made.dev.items()}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("cola", {"CoLA/train.tsv": "\t1\t\tmany happy horses with those", "CoLA/test.tsv": "index\tsentence\n"}),
        ("stsb", {"STS-B/dev.tsv": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t"
                                   "score\n",
                  "STS-B/test.tsv": "index\tsentence1\tsentence2\n"}),
        ("mnli", {"MNLI/train.tsv": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
                                    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n",
                  "MNLI/dev_matched.tsv": "index\tpromptID\t", "MNLI/dev_mismatched.tsv": "index\tpromptID\t",
                  "MNLI/test_matched.tsv": "index\tsentence1\tsentence2\n",
                  "MNLI/test_mismatched.tsv": "index\tsentence1\tsentence2\n",
                  "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n"}),
    ],
)  # fmt: skip
def test_files_are_laid_out_as_glue_lays_them_out(name: str, starts: dict[str, str], tmp_path: Path) -> None:
    write_glue_directory(tmp_path, name, 2)
    for path, start in starts.items():
        assert (tmp_path / path).read_text(encoding="utf-8").startswith(start), path


@ALL
def test_no_example_is_repeated_nor_shared_with_a_dev_set(name: str) -> None:
    splits = generated_splits(TASKS[name], 1000)
    rows = [*splits.train.texts, *(texts for dev in splits.dev.values() for texts in dev.texts)]
    assert len(rows) == 1000 + DEV_ROWS * len(TASKS[name].dev_sets)
    assert len(set(rows)) == len(rows)


@ALL
def test_classes_are_balanced(name: str) -> None:
    labels = generated_splits(TASKS[name], 1200).train.labels
    classes = 6 if TASKS[name].is_regression else len(TASKS[name].labels)
    share = 1200 / classes
    counts = Counter(labels)
    assert len(counts) == classes
    assert all(0.85 * share < count < 1.15 * share for count in counts.values()), counts


@ALL
def test_more_training_rows_change_neither_the_dev_set_nor_the_first_rows(name: str) -> None:
    few, many = generated_splits(TASKS[name], 50), generated_splits(TASKS[name], 200)
    assert few.dev == many.dev
    assert few.train == many.train.first(50)


def test_it_is_the_same_everywhere_and_always() -> None:
    train = generated_splits(TASKS["cola"], 2).train
    assert list(train) == [
        (("many happy horses with those quiet birds never see that tall dog.",), 1),
        (("neighbour small that above those old doctors rarely likes many birds.",), 0),
    ]


def test_asking_for_more_than_there_is_says_so() -> None:
    with pytest.raises(ConfigError, match=r"data.generated: the grammar has hardly more than \d+ examples for wnli"):
        generated_splits(TASKS["wnli"], 100_000)


def test_documents_are_the_same_everywhere_and_differ_from_each_other() -> None:
    assert document(0) == document(0)
    texts = [document(number) for number in range(2000)]
    assert len(set(texts)) == len(texts)
    assert all(text.endswith(".") and "  " not in text for text in texts)


def test_documents_hold_no_sentence_that_cola_calls_wrong() -> None:
    made = generated_splits(TASKS["cola"], 2000)
    wrong = {texts[0] for texts, label in [*made.train, *made.dev[""]] if label == 0}
    sentences = {f"{sentence}." for number in range(3000) for sentence in document(number).split(". ")}
    assert not wrong & sentences
