"""Weights of classes are scikit-learn's, and a weighted batch is the same one however it is split up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from neobert.data.glue_tasks import GlueTask
from neobert.training.classifying import ClassifierTrainer, balanced_weights, mean_loss
from tests.neobert.conftest import REPOSITORY
from tests.neobert.training.test_gradients import SETTINGS, assert_same_training, logged

TASK = GlueTask("own files", ("text",), ("a", "b", "c"), ("accuracy",))


def test_each_class_weighs_as_much_as_the_next() -> None:
    labels = [0.0] * 6 + [1.0] * 3 + [2.0]
    weights = balanced_weights(TASK, labels)
    assert weights.tolist() == pytest.approx([10 / (3 * 6), 10 / (3 * 3), 10 / 3])
    sums = torch.zeros(3).index_add_(0, torch.tensor(labels, dtype=torch.long), weights[torch.tensor(labels).long()])
    assert sums.tolist() == pytest.approx([10 / 3] * 3)
    pytest.importorskip("sklearn")
    from sklearn.utils.class_weight import compute_class_weight

    theirs = compute_class_weight("balanced", classes=torch.arange(3).numpy(), y=torch.tensor(labels).numpy())
    assert weights.tolist() == pytest.approx(theirs.tolist())


def test_a_class_without_an_example_and_a_regression_have_no_weight() -> None:
    with pytest.raises(ValueError, match="the training set has no example of c, which could have any weight: leave"):
        balanced_weights(TASK, [0, 1, 1])
    with pytest.raises(ValueError, match="is for classifications"):
        balanced_weights(GlueTask("own files", ("text",), (), ("pearson",)), [0.5, 1.5])


def test_the_loss_is_pytorchs_weighted_mean() -> None:
    logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    weights = balanced_weights(TASK, labels.tolist())
    expected = cross_entropy(logits, labels, weight=weights)
    trainer = SimpleNamespace(_class_weights=weights)
    items = sum(ClassifierTrainer._weight(trainer, part) for part in (labels[:3], labels[3:]))  # type: ignore[arg-type]
    pieces = [mean_loss({"logits": logits[part]}, labels[part], items, weights) for part in (slice(3), slice(3, 8))]
    assert float(sum(pieces)) == pytest.approx(float(expected), rel=1e-6)


def rare(directory: Path, tiny_bert: Path) -> list[str]:
    """The settings of a training on own files of which one class is rare, in batches with and without it."""
    path = directory / "data.csv"
    path.write_text("text,label\n" + "".join(f"text number {n},{'yes' if n % 7 == 1 else 'no'}\n" for n in range(48)))
    files = [f"data.{name}_file={path}" for name in ("train", "validation")]
    return ["glue", *SETTINGS, *files, f"model.name_or_path={tiny_bert}", "trainer.class_weights=balanced"]


def test_a_weighted_batch_is_the_same_in_pieces_and_on_two_processes(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = rare(tmp_path, tiny_bert)
    whole, two, plain = (tmp_path / name for name in ("whole", "two", "plain"))
    assert neobert(*settings, "trainer.per_device_train_batch_size=16", "--output-dir", whole) == 0
    assert "class weights: no 0.5854, yes 3.429\n" in capsys.readouterr().out
    split = ["trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "neobert"]
    subprocess.run([*torchrun, *settings, *split, "--output-dir", str(two)], check=True, cwd=REPOSITORY, timeout=300)
    assert_same_training(whole, two)
    same = [setting for setting in settings if "class_weights" not in setting]
    assert neobert(*same, "trainer.per_device_train_batch_size=16", "--output-dir", plain) == 0
    assert logged(plain, "grad_norm") != pytest.approx(logged(whole, "grad_norm"), rel=1e-2)
    assert logged(plain, "eval_loss")[-1] != logged(whole, "eval_loss")[-1]


def test_a_class_that_the_training_set_lacks_is_an_error(
    neobert: Callable[..., int], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = "data.labels=[no, yes, maybe]"
    assert neobert(*rare(tmp_path, tiny_bert), labels, "--output-dir", tmp_path / "out") == 2
    assert "trainer.class_weights: the training set has no example of maybe" in capsys.readouterr().err
