"""The command: whole or in parts, disturbed or not, it ends with the same shards; what goes wrong is one message."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from neobert.config import ConfigError
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.data.text.shards import Shards
from tests.neobert.conftest import REPOSITORY
from tests.neobert.damage import flip_bit

Neobert = Callable[..., int]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a megabyte in two dozen files, each of which becomes a shard of its own."""
    directory = tmp_path_factory.mktemp("corpus")
    texts = [pair[0] for pair in generated_splits(TASKS["sst2"], 10_000).train.texts]
    for number in range(25):
        (directory / f"{number:02d}.txt").write_text("\n".join(texts[number * 400 : (number + 1) * 400]))
    with (directory / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": " ".join(texts[n : n + 30])}) + "\n" for n in range(0, 3000, 30))
    return directory


@pytest.fixture
def settings(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The arguments of a trial; `name` is that of its directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, **change: Any) -> list[str]:
        found = {
            "data": {"files": [str(corpus)]}, "tokenizer": {"train_vocab_size": 200}, "output": "shards",
            "max_seq_length": 32, "validation_fraction": 0.1, "shard_bytes": 10_000,
        }  # fmt: skip
        Path(f"{name}.yaml").write_text(yaml.safe_dump(found | change))
        return ["preprocess", "--config", f"{name}.yaml", "--output-dir", name]

    return write


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "neobert", *arguments], env=environ, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def contents(directory: str) -> dict[str, bytes]:
    found = {
        str(path.relative_to(directory)): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()
    }
    assert "manifest.json" in found
    return found


def made(directory: str) -> dict[str, int]:
    """When each shard was made."""
    return {path.name: path.stat().st_mtime_ns for path in Path(directory, "shards").glob("[0-9]*.json")}


def test_parts_come_to_the_same_as_the_whole(neobert: Neobert, settings: Callable[..., list[str]]) -> None:
    assert neobert(*settings("whole", output="one")) == 0
    result = json.loads(Path("whole/result.json").read_text())
    manifest = json.loads(Path("one/manifest.json").read_text())
    assert (result["metric"], result["score"]) == ("tokens", manifest["train"]["tokens"])
    assert result["metrics"]["documents"] == manifest["documents"] == 10_100
    assert manifest["shards"] > 20

    assert neobert(*settings("learn", step="tokenizer")) == 0
    parts = [start(settings(f"part{part}", step="part", part=part, parts=3)) for part in range(3)]
    for part, process in enumerate(parts):
        output, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, ""), output
        progress = json.loads(Path(f"part{part}/progress.json").read_text())
        assert progress["step"] == progress["total_steps"] == len(range(part, manifest["shards"], 3))
        assert progress["tokens_per_second"] > 0
    assert not Path("shards/manifest.json").exists()
    assert neobert(*settings("merge", step="merge", parts=3)) == 0
    assert contents("shards") == contents("one")


def test_killed_and_started_again_it_makes_only_what_is_missing(
    neobert: Neobert, settings: Callable[..., list[str]]
) -> None:
    process = start(settings("killed"))
    while len(made("shards")) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    before = made("shards")
    assert neobert(*settings("killed")) == 0
    after = made("shards")
    assert 3 <= len(before) < len(after)
    assert {name: after[name] for name in before} == before
    assert neobert(*settings("whole", output="one")) == 0
    assert contents("shards") == contents("one")


def test_asked_to_stop_it_ends_between_shards_and_goes_on_later(
    neobert: Neobert, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def ask() -> None:
        while len(made("shards")) < 2:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR2)

    asking = threading.Thread(target=ask)
    asking.start()
    assert neobert(*settings("trial")) == 85
    asking.join()
    before = made("shards")
    assert "asked to stop: " in capsys.readouterr().out
    assert json.loads(Path("trial/progress.json").read_text())["phase"] == "stopped"
    assert not Path("trial/result.json").exists()
    assert not list(Path("shards/shards").glob(".*")), "no shard is left half made"
    assert neobert(*settings("trial")) == 0
    after = made("shards")
    assert 2 <= len(before) < len(after)
    assert {name: after[name] for name in before} == before
    assert f"{len(before)} of {len(after)} shards are there already" in capsys.readouterr().out


def test_the_same_again_makes_nothing(neobert: Neobert, settings: Callable[..., list[str]]) -> None:
    assert neobert(*settings("first")) == 0
    before = made("shards")
    assert neobert(*settings("second")) == 0
    assert made("shards") == before


def test_the_same_command_looks_whether_it_still_is_done(
    neobert: Neobert, settings: Callable[..., list[str]], corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = Path(shutil.copytree(corpus, tmp_path / "text"))
    words = settings("trial", data={"files": [str(text)]})
    assert neobert(*words) == 0
    result, before, whole = Path("trial/result.json"), made("shards"), contents("shards")
    first = result.stat().st_mtime_ns
    assert neobert(*words) == 0
    assert "already done: trial/result.json\n" in capsys.readouterr().out
    assert (made("shards"), result.stat().st_mtime_ns) == (before, first)

    Path("shards/shards/train-00003.ids").unlink()
    Path("shards/shards/train-00004.ends").write_bytes(b"cut")
    Path("shards/shards/00005.json").unlink()
    assert neobert(*words) == 0
    assert "shard 3 is made again: shards/shards/train-00003.ids cannot be read: No such" in capsys.readouterr().err
    changed = {name for name, time in made("shards").items() if time != before[name]}
    assert changed == {"00003.json", "00004.json", "00005.json"}
    assert contents("shards") == whole
    shutil.rmtree("shards/tokenizer")
    Path("shards/manifest.json").unlink()
    assert neobert(*words) == 0
    assert contents("shards") == whole

    flip_bit(Path("shards/shards/train-00003.ids"))
    pieces = Shards(Path("shards"), "train")
    with pytest.raises(ConfigError, match=r"Remove shards/shards/00003.json. The same `neobert preprocess` as before"):
        [pieces[number] for number in range(len(pieces))]
    Path("shards/shards/00003.json").unlink()
    assert neobert(*words) == 0
    assert contents("shards") == whole

    file = text / "03.txt"
    file.write_text(file.read_text().swapcase())
    assert neobert(*words) == 2
    error = capsys.readouterr().err
    assert re.search(r"neobert: output: \S+ is a shard of other text than now is in .*/03.txt. Choose another", error)
    file.write_text(file.read_text() + "and more")
    assert neobert(*words) == 2
    assert "learned from something else: files of the source are changed: 03.txt. Choose" in capsys.readouterr().err
    assert contents("shards") == whole


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"data": {"files": ["none"]}}, 2, "neobert: data.files: none: there is no such file"),
        (
            {"data": {"files": ["empty.txt"]}},
            2,
            "neobert: data: holds no text: nothing is in empty.txt. Name files with text in them",
        ),
        (
            {"data": {"files": ["blank.txt"]}},
            2,
            "neobert: data: holds no text to learn a tokenizer from: no document has a word in blank.txt\n",
        ),
        ({"data": {"files": ["latin.txt"]}}, 2, "neobert: latin.txt, at byte 3: is not UTF-8: there stands 0xe9"),
        ({"data": {"files": ["rows.jsonl"]}}, 2, "neobert: rows.jsonl, at byte 0: has no 'text'; there are content"),
        ({"tokenizer": {"name_or_path": "bare"}}, 2, "neobert: tokenizer.name_or_path: 'bare': no tokenizer can be"),
        (
            {"step": "merge", "tokenizer": {"train_vocab_size": 99}},
            2,
            "neobert: tokenizer.train_vocab_size: there is no",
        ),
    ],
)
def test_what_goes_wrong_is_one_message(
    neobert: Neobert, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str],
    change: dict[str, Any], code: int, message: str,
) -> None:  # fmt: skip
    Path("empty.txt").touch()
    Path("blank.txt").write_text("\n \n\n")
    Path("bare").mkdir()
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("rows.jsonl").write_text('{"content": "a"}\n')
    assert neobert(*settings("trial", **change)) == code
    errors = capsys.readouterr().err
    assert errors.startswith(message)
    assert "Traceback" not in errors
    assert not Path("trial/result.json").exists()
    assert not Path("shards/tokenizer").exists()


def test_missing_shards_are_named_by_the_merge(
    neobert: Neobert, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert neobert(*settings("learn", step="tokenizer")) == 0
    assert neobert(*settings("part", step="part", part=1, parts=2)) == 0
    assert neobert(*settings("merge", step="merge", parts=2)) == 1
    assert "shards in shards are not made yet: 0, 2, 4, 6" in capsys.readouterr().err


def test_shards_of_something_else_are_refused(
    neobert: Neobert, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert neobert(*settings("first")) == 0
    assert neobert(*settings("second", max_seq_length=64)) == 2
    told = "neobert: output: shards holds shards of something else: max_seq_length 32 then, 64 now. Choose another"
    assert capsys.readouterr().err.startswith(told)


def test_a_full_disk_is_one_message(settings: Callable[..., list[str]]) -> None:
    """A limit on the size of files stands for the disk: its error comes in the same place."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(settings("trial", shard_bytes=10_000_000), preexec_fn=limit)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, "neobert: shard 0 cannot be written to shards/shards: File too large\n")


def test_text_comes_back_word_for_word(
    neobert: Neobert, settings: Callable[..., list[str]], text_file: Path, minilm: Path
) -> None:
    from transformers import AutoTokenizer

    from neobert.data.text.shards import Shards

    change = {"data": {"files": [str(text_file)]}, "tokenizer": {"name_or_path": str(minilm)}, "shard_bytes": 300_000}
    assert neobert(*settings("real", **change, validation_fraction=0.0)) == 0
    shards = Shards(Path("shards"), "train")
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.backend_tokenizer.no_truncation()
    lines = [line for line in text_file.read_text(encoding="utf-8").split("\n") if line.strip()]
    assert shards.manifest["documents"] == len(lines)
    expected = [ids for line in lines for ids in tokenizer(line, add_special_tokens=False)["input_ids"]]
    assert [token for n in range(len(shards)) for token in shards[n].tolist()[1:-1]] == expected
