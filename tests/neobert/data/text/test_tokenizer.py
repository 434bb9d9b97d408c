"""A tokenizer is there as a whole or not at all, and one that text cannot be masked with is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from neobert.config import ConfigError
from neobert.config.text import TokenizerConfig
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text.pieces import fingerprint
from neobert.data.text.tokenizer import LEARNED, learn_tokenizer, load_tokenizer, save_tokenizer
from neobert.errors import RunError
from tests.neobert.conftest import REPOSITORY

TEXTS = [pair[0] for pair in generated_splits(TASKS["sst2"], 60).train.texts]


def tokenizer(vocabulary: dict[str, int], **special: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")), **special
    )


def numbered(*words: str) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def test_the_same_text_gives_the_same_tokenizer_and_a_note_of_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        learn_tokenizer(iter(TEXTS), 150, tmp_path / name, {"train_vocab_size": 150})
    one, two = (load_tokenizer(str(tmp_path / name)) for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    assert 100 < len(one) <= 150
    assert json.loads((tmp_path / "one" / LEARNED).read_text()) == {"train_vocab_size": 150}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_one_that_is_there_stays(tmp_path: Path) -> None:
    learn_tokenizer(TEXTS, 150, tmp_path / "own", {"first": True})
    learn_tokenizer(TEXTS, 150, tmp_path / "own", {"first": False})
    assert json.loads((tmp_path / "own" / LEARNED).read_text()) == {"first": True}
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_half_a_tokenizer_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_tokenizer(TEXTS, 150, tmp_path / "own", {})
    found = load_tokenizer(str(tmp_path / "own"))

    def full(directory: Path) -> None:
        directory.mkdir()
        (directory / "tokenizer.json").write_text("{")
        raise Exception("No space left on device (os error 28)")  # as the tokenizers' library does

    monkeypatch.setattr(found, "save_pretrained", full)
    with pytest.raises(RunError, match=f"^the tokenizer cannot be written to {tmp_path}/copy: No space left on device"):
        save_tokenizer(found, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (tokenizer(numbered("a", "b", "[UNK]", "[PAD]"), pad_token="[PAD]"), "tokenizer: .* has no mask token"),
        (tokenizer(numbered("a", "b", "[UNK]")), "tokenizer: .* has no mask and no pad token"),
        (tokenizer(numbered("[UNK]", "[PAD]", "[MASK]"), pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]"),
         "tokenizer: .* has no words; are its files complete"),
        (tokenizer(numbered("[UNK]", "[PAD]", "[MASK]", "b") | {"a": 99}, pad_token="[PAD]", mask_token="[MASK]"),
         "tokenizer: .* numbers its 5 tokens with gaps, up to 99: it cannot be used"),
    ],
)  # fmt: skip
def test_one_that_text_cannot_be_masked_with_is_refused(
    tmp_path: Path, found: PreTrainedTokenizerBase, message: str
) -> None:
    found.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(str(tmp_path), TokenizerConfig(name_or_path=str(tmp_path)))


def test_that_of_a_neobert_is_loaded_without_a_warning(tmp_path: Path) -> None:
    """The library reads the configuration of the model as well, and complains of a kind that it does not know."""
    learn_tokenizer(TEXTS, 150, tmp_path / "own", {})
    (tmp_path / "own/config.json").write_text('{"model_type": "neobert"}')
    program = "import sys; from neobert.data.text.tokenizer import load_tokenizer; load_tokenizer(sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path / "own")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_directory_without_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"^tokenizer.name_or_path: '{tmp_path}': no tokenizer can be loaded from it: "
    ):
        load_tokenizer(str(tmp_path))
