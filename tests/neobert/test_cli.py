"""The command line: quick help, clear refusals, exit codes that the launcher understands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.neobert.conftest import REPOSITORY, TINY, without_caveats

Run = Callable[..., int]


def test_help_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from neobert.cli import run\n"
        "assert all(run([*command, '--help']) == 0 for command in ([], ['glue'], ['trial'], ['fetch']))\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'accelerate', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "key=value" in done.stdout
    assert "--manifest" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["glu"], 2, "neobert: 'glu' is not a command; did you mean 'glue'?"),
        (["glue", "task_name=rte"], 2, "the following arguments are required: --output-dir"),
        (["glue", "--lr", "3", "--output-dir", "x"], 2, "unrecognized arguments: --lr"),
        (["glue", "task_name=rt", "data.generated=3", "--output-dir", "x"], 2, "did you mean 'rte'?"),
        (["glue", "--config", "no.yaml", "--output-dir", "x"], 2, "no.yaml: cannot be read: No such file"),
        (["trial", "--manifest", "no.jsonl", "--index", "0", "--output-dir", "x"], 2, "no.jsonl: cannot be read"),
        (["trial", "--manifest", "m", "--index", "one", "--output-dir", "x"], 2, "invalid int value: 'one'"),
    ],
)
def test_a_wrong_command_line_is_refused(
    neobert: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert neobert(*arguments) == code
    assert message in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("environ", "command", "shown"),
    [
        (
            {"PYTHONIOENCODING": "ascii"},
            ["glue", *TINY, "task_name=rte", "data.dir=rü"],
            b"neobert: r\\xfc: does not exist",
        ),
        (
            {"PYTHONIOENCODING": "latin-1"},
            ["glue", *TINY, "task_name=rte", "data.dir=rü"],
            b"neobert: r\xfc: does not exist",
        ),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0"},
            ["preprocess", "--config", "text.yaml"],
            b"/text': the locale cannot express it in a path: set PYTHONUTF8=1",
        ),
    ],
)
def test_a_terminal_or_locale_that_is_not_utf_8_costs_no_traceback(
    tmp_path: Path, environ: dict[str, str], command: list[str], shown: bytes
) -> None:
    (tmp_path / "text.yaml").write_text(
        "{data: {generated: 20}, tokenizer: {train_vocab_size: 99}, output: ü/text}", encoding="utf-8"
    )
    words = [sys.executable, "-m", "neobert", *command, "--output-dir", "trial"]
    environment = os.environ | environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 2, done.stderr
    assert shown in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environ", "prefix"),
    [
        ({}, ""),
        ({"RANK": "0"}, ""),
        ({"RANK": "3"}, "[rank 3] "),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "2"}, "[rank 2] "),
        ({"SLURM_STEP_ID": "-5", "SLURM_PROCID": "2"}, ""),
    ],
)
def test_an_error_says_which_process_it_is_of(environ: dict[str, str], prefix: str) -> None:
    program = "import sys, neobert.cli as cli\nif sys.argv[1:]: cli.run = lambda _: 1 / 0\ncli.main(['nosuch'])"
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "RANK"))}
    for arguments, code, last in (([], 2, "neobert: 'nosuch' is not a command"), (["x"], 1, "ZeroDivisionError: ")):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=base | environ, capture_output=True, text=True)
        lines = done.stderr.splitlines()
        assert done.returncode == code
        assert all(line.startswith(prefix) for line in lines)
        assert lines[-1].startswith(prefix + last)


def test_without_arguments_it_shows_how_to_use_it(neobert: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert neobert() == 2
    assert "example: neobert glue" in capsys.readouterr().out


def test_a_trial_of_a_manifest_runs_as_the_command_would(neobert: Run, tmp_path: Path) -> None:
    config = {
        "task_name": "sst2", "seed": 3, "data": {"generated": 32, "max_eval_samples": 20},
        "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
                      "allow_random_weights": True},
        "trainer": {"max_steps": 2, "use_cpu": True},
    }  # fmt: skip
    trials = [{"id": "other", "task": "glue", "config": {}}, {"id": "a1", "task": "glue", "config": config}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    assert neobert("trial", "--manifest", manifest, "--index", "1", "--output-dir", tmp_path / "trial") == 0
    flat = ["task_name=sst2", "seed=3", "data.generated=32", "data.max_eval_samples=20", "model.hidden_size=16",
            "model.allow_random_weights=true",
            "model.num_hidden_layers=1", "model.num_attention_heads=2", "model.intermediate_size=48",
            "trainer.max_steps=2", "trainer.use_cpu=true"]  # fmt: skip
    assert neobert("glue", "--output-dir", tmp_path / "glue", *flat) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("trial", "glue")]
    assert results[0]["metrics"]["loss"] == results[1]["metrics"]["loss"]


def test_a_process_that_is_asked_to_stop_exits_with_85_and_the_next_finishes(tmp_path: Path) -> None:
    """The real thing: a process of its own, a plain log, and SIGTERM as early as it can come."""
    command = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=sst2", "data.generated=80",
               "--output-dir", str(tmp_path / "out")]  # fmt: skip
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out" / "config.yaml").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # torch is not even imported yet
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 85, errors
    assert "asked to stop: checkpoint saved at step 1 of 30" in output
    assert errors == ""

    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, without_caveats(done.stderr)) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "sst2 (generated): 80 training and 40 dev examples"
    assert lines[1] == "this data is synthetic: scores say nothing about GLUE"
    assert any(line.endswith("lr 0.003, resumed from step 1") for line in lines)
    assert any(line.startswith("step 12/30 (1.20 epochs): loss ") for line in lines)
    assert any(line.startswith("evaluation at step 20: accuracy ") for line in lines)
    assert any(line.startswith("done: accuracy ") for line in lines)
    assert lines[-1].startswith("kept checkpoint-")
    assert "\r" not in done.stdout


def test_a_signal_during_the_exit_does_not_change_the_exit_code() -> None:
    """Python resets the handlers of its own, and then still has seconds of tidying up to do."""
    program = (
        "import os, signal\n"
        "from neobert.cli import main\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid(), signals=(signal.SIGUSR2, signal.SIGTERM)):\n"
        "        for number in signals: kill(me, number)\n"
        "late = Late()\n"
        "main(['glue', 'task_name=rt', '--output-dir', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2, done.stderr


def test_a_package_that_is_missing_is_named_with_what_installs_all_that_tasks_need(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from neobert.cli import main\n"
        "sys.modules['transformers'] = None\n"
        "settings = ['task_name=rte', 'data.generated=8', 'model.allow_random_weights=true']\n"
        "main(['glue', *settings, '--output-dir', sys.argv[1]])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (
        2,
        "neobert: the package transformers is missing. For all that tasks need, "
        "run `pip install -c constraints.txt -e '.[train,eval]'` in the checkout\n",
    )


def test_ctrl_c_is_one_message_at_any_time() -> None:
    program = (
        "import sys\n"
        "from neobert.cli import main\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "main(['glue', 'task_name=rte', '--output-dir', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr == "neobert: interrupted; run the same command again to resume from the last checkpoint\n"


@pytest.mark.parametrize(
    ("redirect", "reason"), [("| true", "Broken pipe"), ("> /dev/full", "No space left on device")]
)
def test_output_that_goes_nowhere_is_one_message(tmp_path: Path, redirect: str, reason: str) -> None:
    command = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=sst2", "data.generated=80",
               "--output-dir", str(tmp_path / "out")]  # fmt: skip
    script = f"set -o pipefail; {shlex.join(command)} {redirect}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (1, f"neobert: standard output: {reason}\n")


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"]])
def test_help_onto_a_full_disk_is_one_message(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "neobert", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (1, "neobert: standard output: No space left on device\n")


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"]])
def test_help_into_a_pipe_that_is_closed_ends_in_silence(words: list[str]) -> None:
    script = f"set -o pipefail; {shlex.join([sys.executable, '-m', 'neobert', *words])} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (141, "")


def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    os.set_inheritable(follower, True)
    subprocess.run(["stty", "rows", "40", "cols", "120"], stdin=follower, check=True)
    command = [sys.executable, "-m", "neobert", "glue", *TINY, "task_name=sst2", "data.generated=80",
               "--output-dir", str(tmp_path / "out")]  # fmt: skip
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        shown += piece
    os.close(leader)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "30/30 [" in text
    assert "evaluation at step 20: accuracy" in text
    assert "step 12/30 (1.20 epochs)" not in text
