"""`neobert fetch` with the hub's own clients, against a small hub on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.cli import run
from tests.neobert.conftest import REPOSITORY
from tests.neobert.fetch.conftest import MODEL, TEXT, Fetch
from tests.neobert.fetch.hub import Hub

CHOSEN = {"config.json", "model.safetensors", "tokenizer.json"}


def file(home: Path, name: str) -> Path:
    (path,) = home.glob(f"hub/models--tiny--model/snapshots/*/{name}")
    return path


def test_one_line_tells_what_is_where_and_the_next_time_nothing_is_sent(hub: Hub, fetch: Fetch, home: Path) -> None:
    hub.add("datasets", "tiny/text", TEXT)
    words = ("--model", "tiny/model", "--text", "tiny/text::validation")
    done = fetch(*words)
    assert (done.returncode, done.stderr) == (0, "")
    commits = [hub.repos[key].commit for key in (("models", "tiny/model"), ("datasets", "tiny/text"))]
    folders = [
        home / "hub" / folder / "snapshots" / commit
        for folder, commit in zip(("models--tiny--model", "datasets--tiny--text"), commits, strict=True)
    ]
    assert done.stdout.splitlines() == [
        f"model tiny/model at {commits[0][:7]}: 3 files, 40.0 kB, new, in {folders[0]}",
        f"text tiny/text (validation) at {commits[1][:7]}: 2 files, 1.0 kB, new, in {folders[1]}",
    ]
    splits = {path for path in TEXT if "validation" in path}
    assert sorted(hub.gets) == sorted(CHOSEN | splits)
    assert {path: (folders[0] / path).read_bytes() for path in CHOSEN} == {path: MODEL[path] for path in CHOSEN}
    hub.gets.clear()
    again = fetch(*words)
    assert again.stdout == done.stdout.replace(", new,", ", there already,")
    assert hub.gets == []


def test_a_damaged_file_is_mended_and_no_other_is_sent(hub: Hub, fetch: Fetch, home: Path) -> None:
    assert fetch("--model", "tiny/model").returncode == 0
    weights, words = file(home, "model.safetensors").resolve(), file(home, "tokenizer.json").resolve()
    weights.write_bytes(b"W" + MODEL["model.safetensors"][1:])
    words.write_bytes(MODEL["tokenizer.json"][:7])
    hub.gets.clear()
    done = fetch("--model", "tiny/model")
    assert done.returncode == 0, done.stderr
    assert sorted(hub.gets) == ["model.safetensors", "tokenizer.json"]
    assert weights.read_bytes() == MODEL["model.safetensors"]
    assert words.read_bytes() == MODEL["tokenizer.json"]
    assert ": 3 files, 40.0 kB, there already, 2 of them mended, in " in done.stdout
    assert "warning: tiny/model: tokenizer.json has 7 bytes, expected 20: it is downloaded again" in done.stderr
    assert "warning: tiny/model: model.safetensors has the checksum " in done.stderr
    before = weights.stat()
    weights.write_bytes(b"W" + MODEL["model.safetensors"][1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "there already, in" in fetch("--model", "tiny/model").stdout, "what looks untouched is not read again"
    assert "1 of them mended" in fetch("--model", "tiny/model", "--verify").stdout
    assert weights.read_bytes() == MODEL["model.safetensors"]


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, fetch: Fetch, home: Path) -> None:
    hub.cut_short["model.safetensors"] = 1
    done = fetch("--model", "tiny/model")
    assert done.returncode == 0, done.stderr
    assert file(home, "model.safetensors").read_bytes() == MODEL["model.safetensors"]


@pytest.mark.parametrize("times", [1, 9])
def test_a_file_that_is_sent_wrong_is_asked_for_once_more(hub: Hub, fetch: Fetch, home: Path, times: int) -> None:
    hub.wrong["model.safetensors"] = times
    done = fetch("--model", "tiny/model")
    assert hub.gets.count("model.safetensors") == 2
    if times == 1:
        assert done.returncode == 0, done.stderr
        assert file(home, "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    else:
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("neobert: tiny/model: model.safetensors has the checksum ")
        assert last.endswith(f"twice: {hub.endpoint} gives another file than it says")
        assert not list(home.glob("hub/*/snapshots/*/model.safetensors")), "nobody takes it for a good one"


def test_several_at_once_download_and_mend_everything_once(
    hub: Hub, fetch: Fetch, home: Path, environ: dict[str, str]
) -> None:
    assert fetch("--model", "tiny/model").returncode == 0
    file(home, "model.safetensors").resolve().write_bytes(b"damaged")
    file(home, "config.json").unlink()
    file(home, "tokenizer.json").resolve().unlink()
    hub.gets.clear()
    command = [sys.executable, "-m", "neobert", "fetch", "--model", "tiny/model"]
    processes = [
        subprocess.Popen(command, env=environ, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    assert sorted(hub.gets) == ["model.safetensors", "tokenizer.json"], "config.json is but linked again"
    assert {path: file(home, path).read_bytes() for path in CHOSEN} == {path: MODEL[path] for path in CHOSEN}


def test_an_interrupted_fetch_says_so_and_goes_on(hub: Hub, fetch: Fetch, home: Path, environ: dict[str, str]) -> None:
    hub.held["model.safetensors"] = threading.Event()
    command = [sys.executable, "-m", "neobert", "fetch", "--model", "tiny/model"]
    process = subprocess.Popen(command, env=environ, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "model.safetensors" in hub.gets and list(home.glob("**/tokenizer.json")))
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=10)[1]
    assert (process.returncode, errors) == (1, "neobert: interrupted; the same command goes on from here\n")
    unfinished = list(home.glob("hub/*/blobs/*.incomplete"))
    assert unfinished
    for path in unfinished:
        os.utime(path, (0, 0))  # long ago
    hub.held.pop("model.safetensors").set()
    hub.gets.clear()
    done = fetch("--model", "tiny/model")
    assert done.returncode == 0, done.stderr
    assert "tokenizer.json" not in hub.gets
    assert file(home, "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert not list(home.glob("hub/*/blobs/*.incomplete"))


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_the_hub_does_not_have_is_told_together_and_the_rest_is_fetched(hub: Hub, fetch: Fetch) -> None:
    hub.add("models", "tiny/gated", MODEL, gated=True)
    hub.add("models", "tiny/other", {"config.json": b"{}", "tf_model.h5": b"weights"})
    words = [word for name in ("no/such", "tiny/model@v7", "tiny/gated", "tiny/other", "tests", "a/b/c", "tiny/model")
             for word in ("--model", name)]  # fmt: skip
    done = fetch(*words)
    assert done.returncode == 2
    assert done.stdout.startswith("model tiny/model at ")
    token = "set HF_TOKEN (`secrets: [HF_TOKEN]` in recipe or profile takes it into a container)"
    assert done.stderr.splitlines() == [
        f"neobert: {hub.endpoint} has no model no/such; if it is private, {token}",
        "tiny/model has no revision 'v7'",
        f"tiny/gated is gated: accept its terms at {hub.endpoint}/tiny/gated first; {token}",
        "tiny/other holds neither model.safetensors nor pytorch_model.bin",
        "tests is a directory of this machine, and no name on the hub",
        "'a/b/c' is neither a directory here nor a name on the hub, such as OWNER/NAME",
    ]


def test_a_token_opens_what_is_gated_if_it_is_the_right_one(hub: Hub, fetch: Fetch) -> None:
    hub.add("models", "tiny/gated", MODEL, gated=True)
    refused = fetch("--model", "tiny/gated", HF_TOKEN="bad")
    assert refused.returncode == 2
    assert refused.stderr.endswith("first; the token in use is not that of somebody who has\n")
    assert fetch("--model", "tiny/gated", HF_TOKEN="good").returncode == 0
    expired = fetch("--model", "tiny/model", HF_TOKEN="expired")
    assert expired.returncode == 2
    assert f"neobert: {hub.endpoint} refuses tiny/model to the token in use (HF_TOKEN): " in expired.stderr


def test_without_a_hub_there_is_one_message(fetch: Fetch) -> None:
    done = fetch("--model", "tiny/model", "--model", "tiny/other", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "neobert: http://127.0.0.1:9 cannot be reached: [Errno 111] Connection refused. A machine with a connection is "
        "needed, such as a login node; HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to fetch: expected --model, --tokenizer, --dataset, --text, each with a name"),
        (["--model", "a:b"], "argument --model: expected NAME[@REVISION], found 'a:b'"),
        (["--dataset", "a:b:c"], "argument --dataset: expected NAME[:CONFIG][@REVISION], found 'a:b:c'"),
        (["a/b"], "unrecognized arguments: a/b"),
    ],
)
def test_a_wrong_command_line_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert run(["fetch", *words]) == 2
    assert said in capsys.readouterr().err
