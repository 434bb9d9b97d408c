"""The data of a pretraining: what does not go together is refused at its setting, and what is held out stays so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neobert.config import ConfigError, PreprocessConfig, PretrainConfig, validate
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text.corpus import find_corpus
from neobert.data.text.preprocessing import find_tokenizer, make_shard, merge, plan
from neobert.data.text.stream import Row
from neobert.data.text.training import TrainingData, load_data

LENGTH = 32
TEXTS = [pair[0] for pair in generated_splits(TASKS["sst2"], 900).train.texts]


def preprocess(directory: Path, texts: list[str], vocabulary: int = 200, **change: Any) -> Path:
    """Shards of these texts, in `directory`/shards; their tokenizer is learned from them."""
    directory.mkdir(parents=True)
    (directory / "text.txt").write_text("\n".join(texts))
    settings = {
        "data": {"files": [str(directory / "text.txt")]}, "tokenizer": {"train_vocab_size": vocabulary},
        "output": str(directory / "shards"), "max_seq_length": LENGTH, "validation_fraction": 0.1,
    }  # fmt: skip
    config = validate(PreprocessConfig, settings | change)
    source = find_corpus(config.data, ("data",))
    work = plan(config, source, find_tokenizer(config, source))
    make_shard(work, 0)
    merge(work)
    return directory / "shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return preprocess(tmp_path_factory.mktemp("data") / "one", TEXTS[:600])


@pytest.fixture(scope="module")
def more_shards(shards: Path) -> Path:
    """Of other text, with the same tokenizer."""
    tokenizer = {"name_or_path": str(shards / "tokenizer")}
    return preprocess(shards.parents[1] / "two", TEXTS[600:], tokenizer=tokenizer)


def load(dataset: dict[str, Any], **change: Any) -> TrainingData:
    settings = {
        "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
        "dataset": {"max_seq_length": LENGTH, **dataset}, "trainer": {"max_steps": 3, "use_cpu": True},
    }  # fmt: skip
    return load_data(validate(PretrainConfig, settings | change))


def refusal(dataset: dict[str, Any], **change: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(dataset, **change)
    return str(caught.value)


def whole(rows: list[Row]) -> list[tuple[int, ...]]:
    """The pieces of rows, without their masks."""
    found = []
    for row in rows:
        ids = np.where(row.labels >= 0, row.labels, row.ids)
        found += [tuple(part.tolist()) for part in np.split(ids, np.cumsum(row.lengths)[:-1])]
    return found


def trained_on(data: TrainingData, windows: int) -> set[tuple[int, ...]]:
    return {piece for window in range(windows) for piece in whole([row for _, row in data.windows(2).rows(window)])}


# -- what is held out ---------------------------------------------------------------------------------------------


def test_what_is_held_out_does_not_depend_on_the_seed(shards: Path) -> None:
    one, two = (load({"path": str(shards)}, seed=seed) for seed in (1, 2))
    assert len(whole(one.held_out)) > 30
    for first, second in zip(one.held_out, two.held_out, strict=True):
        assert first.ids.tolist() == second.ids.tolist()
        assert first.labels.tolist() == second.labels.tolist()
    assert [r.ids.tolist() for _, r in one.windows(2).rows(0)] != [r.ids.tolist() for _, r in two.windows(2).rows(0)]


def test_what_is_held_out_is_never_trained_on(shards: Path) -> None:
    data = load({"path": str(shards)})
    seen = trained_on(data, data.windows(2).in_an_epoch)
    manifest = json.loads((shards / "manifest.json").read_text())
    assert len(whole(data.held_out)) == manifest["validation"]["pieces"]
    assert not set(whole(data.held_out)) & seen
    assert data.tokens == manifest["train"]["tokens"]


def test_of_several_shards_each_holds_something_out(shards: Path, more_shards: Path) -> None:
    expected = [whole(load({"path": str(path)}).held_out) for path in (shards, more_shards)]
    for weights in ({}, {"weight": 1.0}):
        data = load({"sources": [{"path": str(path), **weights} for path in (shards, more_shards)]})
        assert sorted(whole(data.held_out)) == sorted(expected[0] + expected[1])
        assert (data.tokens is None) == bool(weights), "how long an epoch of weighted sources is nobody can say"


def test_only_so_much_is_held_out_as_is_asked_for(shards: Path) -> None:
    every = whole(load({"path": str(shards)}).held_out)
    some = whole(load({"path": str(shards), "eval_samples": 10}).held_out)
    assert len(some) == 10
    assert set(some) <= set(every)


def test_streams_hold_out_what_is_named(shards: Path, more_shards: Path) -> None:
    stream = {"files": [str(shards.parent / "text.txt")], "streaming": True}
    tokenizer = {"name_or_path": str(shards / "tokenizer")}
    assert load(stream, tokenizer=tokenizer).held_out == []
    of_file = {"files": [str(more_shards.parent / "text.txt")]}
    data = load({**stream, "validation": of_file}, tokenizer=tokenizer)
    assert len(whole(data.held_out)) == 300
    of_shards = load({**stream, "validation": {"path": str(more_shards)}}, tokenizer=tokenizer)
    assert 200 < len(whole(of_shards.held_out)) < 300
    assert set(whole(of_shards.held_out)) <= set(whole(data.held_out))


def test_a_stream_makes_the_pieces_of_the_shards(shards: Path) -> None:
    tokenizer = {"name_or_path": str(shards / "tokenizer")}
    stream = load({"files": [str(shards.parent / "text.txt")], "streaming": True}, tokenizer=tokenizer)
    mapped = load({"path": str(shards)})
    expected = trained_on(mapped, mapped.windows(2).in_an_epoch) | set(whole(mapped.held_out))
    assert trained_on(stream, stream.windows(2).in_an_epoch) == expected


# -- what is refused ----------------------------------------------------------------------------------------------


def test_another_tokenizer_than_that_of_the_shards_is_refused(shards: Path, tmp_path: Path, minilm: Path) -> None:
    told = refusal({"path": str(shards)}, tokenizer={"name_or_path": str(minilm)})
    assert told.startswith(f"dataset.path: {shards} was tokenised with another tokenizer (")
    assert f") than {minilm} (" in told
    assert told.endswith(f"which is to be trained with. Take {shards / 'tokenizer'}, or make these shards anew")
    other = preprocess(tmp_path / "other", TEXTS, vocabulary=150)
    told = refusal({"sources": [{"path": str(shards)}, {"path": str(other)}]})
    assert told.startswith(f"dataset.sources[1].path: {other} was tokenised with another tokenizer")
    told = refusal({"path": str(shards), "validation": {"path": str(other)}})
    assert told.startswith(f"dataset.validation.path: {other} was tokenised with another tokenizer")


def test_a_copy_of_the_tokenizer_is_the_same(shards: Path) -> None:
    named = load({"path": str(shards)}, tokenizer={"name_or_path": str(shards / "tokenizer")})
    assert named.source == load({"path": str(shards)}).source


def test_too_long_pieces_are_refused(shards: Path) -> None:
    message = f"dataset.max_seq_length: is 16, but {shards} holds pieces of up to 32 tokens"
    assert refusal({"path": str(shards), "max_seq_length": 16}) == message


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"path": "none"}, "dataset.path: none: no such directory"),
        ({"path": "."}, "dataset.path: .: holds no shards of `neobert preprocess`"),
        ({"files": ["none.txt"], "streaming": True}, "dataset.files: none.txt: there is no such file (here: "),
        ({"files": ["a.csv"], "streaming": True}, "dataset.files: a.csv: the name does not tell what it is"),
        ({"files": ["empty.txt"], "streaming": True}, "dataset: holds no text"),
        ({"files": ["bad.parquet"], "streaming": True}, "bad.parquet: dataset.files: is damaged, or not what its name"),
        ({"sources": [{"files": ["a.txt"]}, {"files": ["empty.txt"]}], "streaming": True},
         "dataset.sources[1]: holds no text"),
        ({"sources": [{"files": ["a.txt"], "weight": 1.0}, {"files": ["empty.txt"], "weight": 2.0}],
          "streaming": True}, "dataset.sources[1]: holds no text"),
        ({"files": ["a.txt"], "streaming": True, "validation": {"files": ["empty.txt"]}},
         "dataset.validation: holds no text"),
        ({"files": ["a.txt"], "streaming": True, "validation": {"files": ["none.txt"]}},
         "dataset.validation.files: none.txt: there is no such file"),
    ],
)  # fmt: skip
def test_what_is_missing_or_empty_is_told_at_its_setting(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\n".join(TEXTS[:50]))
    Path("empty.txt").touch()
    Path("a.csv").touch()
    Path("bad.parquet").write_text("no parquet")
    change = {"tokenizer": {"name_or_path": str(shards / "tokenizer")}} if dataset.get("streaming") else {}
    assert refusal(dataset, **change).startswith(message)


def test_shards_that_hold_out_everything_are_no_text_to_train_on(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    copy.mkdir()
    (copy / "shards").symlink_to(shards / "shards")
    (copy / "tokenizer").symlink_to(shards / "tokenizer")
    manifest = json.loads((shards / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"sizes": {"train": [], "validation": []}}))
    assert refusal({"path": str(copy)}) == "dataset: holds no text"


def test_whole_words_need_a_tokenizer_that_marks_them(shards: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )
    letters.save_pretrained(tmp_path)
    told = refusal(
        {"files": [str(shards.parent / "text.txt")], "streaming": True}, tokenizer={"name_or_path": str(tmp_path)},
        datacollator={"whole_words": True},
    )  # fmt: skip
    assert told == "datacollator: the tokenizer does not mark where words begin, so they cannot be masked as a whole"


def test_what_identifies_the_data_changes_with_it(shards: Path, more_shards: Path) -> None:
    known = load({"path": str(shards)}).source
    assert json.loads(json.dumps(known)) == known
    assert load({"path": str(shards)}, seed=3).source != known, "the order of the data is another"
    assert load({"path": str(more_shards)}).source != known
