"""What the commands print on terminals, narrow and wide, and in pipes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from slurm.cluster import load_profile
from slurm.compare import compare_runs
from slurm.plan import make_plan
from slurm.recipe import load_recipe
from slurm.results import results_table, trials_table
from slurm.rundir import RunDir
from slurm.show import COLOURS, ENDLESS, URGENCY, Screenful, plan_view, redraws, results_view, status_view
from slurm.state import RunState, State, TrialState

WIDTHS = (40, 60, 80, 100, 120, 200)
ERROR = "exit code 1, attempt 2 on node17: " + " ".join(f"word{number}" for number in range(38))
MNLI = [f"{split}_{name}_f1" for split in ("matched", "mismatched") for name in
        ("accuracy", "entailment", "neutral", "contradiction", *"abcdefghijk")]  # fmt: skip


def printed(view: Any, width: int = ENDLESS, height: int = 25) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(view)
    lines = out.getvalue().splitlines()
    assert width == ENDLESS or max(map(cell_len, lines)) <= width
    return lines


def trial(number: int, state: State = State.DONE, detail: str = "", **point: Any) -> TrialState:
    metrics = {"accuracy": 0.5 + number / 1000, **dict.fromkeys(MNLI, number / 7919)}
    result = {"score": metrics["accuracy"], "metric": "accuracy", "baseline": 0.5, "seconds": 2.0, "metrics": metrics}
    progress = {"step": number, "total_steps": 100, "loss": 1.5, "samples_per_second": 512.0, "seconds_left": 720}
    return TrialState(
        f"{number:012x}", "glue", {"task_name": "rte", **point}, state, detail,
        progress if state is State.RUNNING else {}, result if state is State.DONE else {},
    )  # fmt: skip


def run(*trials: TrialState) -> RunState:
    return RunState(RunDir(Path("/runs/sweep/20260131-120000")), trials)


RATES = run(*(trial(n, **{"optimizer.lr": lr, "seed": n % 2}) for n, lr in enumerate([1e-4, 1e-4, 3e-4, 3e-4])))


@pytest.mark.parametrize("width", WIDTHS)
def test_two_learning_rates_never_print_the_same(width: int) -> None:
    for view in (results_view(results_table(RATES)), results_view(trials_table(RATES)), status_view(RATES)):
        text = " ".join(printed(view, width))
        assert " 1e-4 " in text
        assert " 3e-4 " in text


def test_what_all_rows_share_stands_above_the_table() -> None:
    assert printed(results_view(results_table(RATES)), 80)[:2] == [
        "task_name rte · metric accuracy · done 2/2",
        "  lr    mean     ci95       sd  median    best  baseline",
    ]


def test_a_single_row_stays_a_table_where_it_fits() -> None:
    one = results_view(results_table(run(RATES.trials[0])))
    assert printed(one, 100)[0].split()[:5] == ["task_name", "lr", "metric", "done", "mean"]
    assert printed(one, 40)[:2] == ["task_name rte · lr 1e-4", "metric accuracy · done 1/1 · mean 0.5000"]


@pytest.mark.parametrize("width", WIDTHS)
def test_metrics_without_room_are_named_with_what_shows_them(width: int) -> None:
    lines = printed(results_view(trials_table(RATES)), width)
    place = next(place for place, line in enumerate(lines) if line.startswith("not shown: "))
    note = "".join(lines[place:]).replace(" ", "")
    header = "".join(lines[:place])
    for name in MNLI:
        assert name in note or re.search(re.escape(name.rpartition("_")[2]), header)
    assert "--formatcsv)" in note
    assert len([line for line in lines if re.match("[0-9a-f]{12}", line)]) == 4 or width == 40


def test_a_metric_named_like_the_score_is_one_of_the_metrics() -> None:
    one = trial(1)
    same, other = (
        replace(one, result=one.result | {"metrics": {"f1": 0.25, "score": score}}) for score in (0.501, 0.9)
    )
    assert "  score  baseline      f1  seconds" in printed(results_view(trials_table(run(same))), 120)[0]
    lines = printed(results_view(trials_table(run(one, replace(other, id="b" * 12)))), 60)
    assert lines[1].split().count("score") == 1
    assert "score" in "".join(lines).partition("not shown")[2]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_error_stays_readable_below_its_row(width: int) -> None:
    state = run(trial(1, State.FAILED, ERROR, seed=1), trial(2, State.RUNNING, seed=2), trial(3, seed=3))
    lines = printed(status_view(state), width)
    text = " ".join(" ".join(lines).split())
    assert ERROR in text
    assert "step 2/100, loss 1.500, 512 samples/s, 12 min left" in text
    assert "out of memory" not in text


def test_a_screenful_is_no_higher_than_the_screen_and_counts_the_rest() -> None:
    states = [State.DONE, State.PENDING, State.RUNNING, State.FAILED]
    state = run(*(trial(n, states[n % 4], ERROR if n % 4 == 3 else "", seed=n) for n in range(36)))
    for height in (5, 10, 24, 60, 200):
        lines = printed(Screenful(state, False), 80, height)
        assert len(lines) <= height
        shown = sum(bool(re.match("0{8}", line)) for line in lines)
        assert (shown == 36) == (height == 200)
        if shown < 36:
            assert lines[-1] == f"… and {36 - shown} more trials (`recipe status --all` shows them)"
    rows = [line for line in printed(Screenful(state, False), 80, 24) if line.startswith("0000")]
    assert all(line.endswith("  failed") for line in rows), "what needs attention comes first"


def with_doubt(one: TrialState) -> TrialState:
    text = "no better than the majority class: accuracy is 0.5000, and 0.5000 without looking at a text"
    return replace(one, result={**one.result, "warnings": [text]})


def test_a_trial_that_is_done_but_no_good_says_so() -> None:
    state = run(trial(1), with_doubt(trial(2)))
    good, bad = printed(status_view(state))[3:5]
    assert good.endswith("done             accuracy 0.5010")
    assert bad.endswith("accuracy 0.5020; no better than the majority class")


def test_trials_that_are_not_shown_are_counted_by_their_doubts() -> None:
    many = run(*(with_doubt(trial(n)) if n % 10 == 0 else trial(n) for n in range(60)))
    lines = printed(status_view(many))
    ids = ", ".join(f"{n:012x}" for n in range(0, 50, 10))
    assert lines[-1] == f"6 of 60 trials: no better than the majority class ({ids}, ...)"
    assert "no better" not in printed(status_view(many, every=True))[-1].partition("; ")[0]
    for height in (5, 10, 24):
        assert len(printed(Screenful(many, False), 80, height)) <= height


@pytest.mark.parametrize("form", ["table", "csv", "json", "markdown", "latex"])
def test_results_tell_of_doubts_on_standard_error_in_every_format(scored: Path, form: str) -> None:
    one = RATES.trials[0]
    (scored / "trials" / one.id / "result.json").write_text(json.dumps(with_doubt(one).result))
    command = [sys.executable, "-m", "slurm.cli", "results", "sweep", "--format", form]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    told = f"1 of 4 trials: no better than the majority class ({one.id})"
    assert told in done.stderr.splitlines()
    assert "no better" not in done.stdout


def test_each_state_has_a_colour_that_says_how_urgent_it_is() -> None:
    assert set(COLOURS) == set(State)
    assert set(COLOURS.values()) <= URGENCY.keys()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_with_many_axes_shows_each_number_whole(write: Callable[[str, str], Path], width: int) -> None:
    path = write("many.yaml", """
        name: many
        task: glue
        resources: {time: 00:10:00, cpus: 1, mem: 100M}
        config: {data: {generated: 100}, model: {allow_random_weights: true}}
        grid:
          task_name: [cola, rte]
          optimizer.lr: [1e-4, 3e-4]
          optimizer.weight_decay: [0, 0.01]
          trainer.per_device_train_batch_size: [16, 32]
          trainer.num_train_epochs: [3]
          seed: [1234567, 7654321]
    """)  # fmt: skip
    plan = make_plan(load_recipe(str(path)), "local", load_profile("local"))
    view = plan_view(plan, {stage.name: list(stage.trials) for stage in plan.stages}, {}, True)
    text = " ".join(printed(view, width)) + " "
    for _, one in plan.trials:
        assert f"{one.id} " in text
    assert min(text.count(f" {number} ") for number in ("1e-4", "3e-4", "0.01", "16", "1234567", "7654321")) >= 16


def test_the_comparison_of_runs_fits() -> None:
    other = run(*(trial(n + 5, **one.point) for n, one in enumerate(RATES.trials)))
    for width in WIDTHS:
        text = " ".join(printed(results_view(compare_runs(RATES, other).table), width)) + " "
        assert text.count(" 0.0050 ") == 3 or "difference 0.0050 " in text


def test_a_pipe_gets_every_column_of_each_row_on_one_line() -> None:
    head, *rows = printed(results_view(trials_table(RATES)))
    assert len(rows) == 4
    assert head.split() == list(trials_table(RATES).columns)
    assert "  0.0001  " in rows[0]
    assert cell_len(head) > 500
    lines = printed(status_view(run(trial(1, State.FAILED, ERROR * 3))))
    assert lines[-1].endswith(ERROR * 3)


# ------------------------------------------------------------------------------------------------------- real terminals


@pytest.fixture
def scored(work: Path) -> Path:
    """The directory of a run with results, as far as `status` and `results` read it."""
    directory = work / "runs" / "sweep" / "20260131-120000"
    for one in RATES.trials:
        (directory / "trials" / one.id).mkdir(parents=True)
        (directory / "trials" / one.id / "result.json").write_text(json.dumps(one.result))
        with (directory / "manifest.jsonl").open("a") as file:
            file.write(json.dumps({"id": one.id, "stage": one.stage, "task": "glue", "point": one.point}) + "\n")
    return directory


def on_terminal(arguments: Sequence[str], columns: int, **env: str) -> str:
    """Run a command on a terminal so wide, and return what it prints."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "slurm.cli", *arguments]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, env=environment | {"TERM": "xterm"} | env)
    os.close(terminal)
    output = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        output += piece
    os.close(screen)
    assert process.wait(60) == 0
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("columns", "env", "widest"),
    [
        (80, {}, 80),
        (120, {"TERM": "dumb"}, 120),
        (80, {"TERM": "dumb", "COLUMNS": "60"}, 60),
        (80, {"COLUMNS": "0"}, 80),
        (80, {"COLUMNS": "100000"}, 1000),
        (0, {"NO_COLOR": "1"}, 80),
    ],
)
def test_a_table_fits_the_terminal_that_there_is(scored: Path, columns: int, env: dict[str, str], widest: int) -> None:
    text = on_terminal(["results", "sweep", "--trials"], columns, **env)
    lines = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", text).splitlines()
    assert widest / 2 < max(map(cell_len, lines)) <= widest
    assert " 1e-4 " in "".join(lines)
    if env:
        assert "\x1b[3" not in text, "no colours"


def test_a_pipe_may_ask_for_colours_and_keeps_whole_lines(
    run_recipe: Callable[..., subprocess.CompletedProcess[str]], scored: Path
) -> None:
    plain, coloured = (run_recipe("status", "sweep", env=env) for env in ({}, {"FORCE_COLOR": "1", "COLUMNS": "40"}))
    assert "\x1b[" in coloured.stdout
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured.stdout) == plain.stdout


def test_only_a_real_terminal_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert redraws(Console(force_terminal=True, width=80))
    assert not redraws(Console(force_terminal=True, width=ENDLESS)), "a pipe with FORCE_COLOR"
    monkeypatch.setenv("TERM", "dumb")
    assert not redraws(Console(force_terminal=True, width=80))
