"""The end of a log, in the words of each version of Slurm, of Python, Apptainer and this project."""

from __future__ import annotations

import signal

import pytest

from slurm.logtext import End, first_end, is_out_of_memory, lines_of, message, slurms_verdict

KILL_ON_BAD_EXIT = {
    "22.05": [
        "srun: launch/slurm: _step_signal: Terminating StepId=3.0",
        "slurmstepd: error: *** STEP 3.0 ON node1 CANCELLED AT 21:37:47 ***",
        "srun: error: node2: task 2: Exited with exit code 85",
        "srun: error: node1: tasks 0-1: Terminated",
    ],
    "24.11, several slurmd on a host": [
        "srun: Terminating StepId=3.0",
        "slurmstepd-node1: error: *** STEP 3.0 ON node1 CANCELLED AT 21:37:47 ***",
        "srun: error: node2: task 2: Terminated",
        "srun: error: node1: tasks 0-1: Exited with exit code 85",
    ],
    "26.05": [
        "srun: Terminating StepId=3.0",
        "[2026-11-29T17:56:54.912] error: *** STEP 3.0 ON node1 CANCELLED AT 17:56:54 DUE TO TASK FAILURE ***",
        "srun: error: node1: tasks 0-1: Terminated",
        "srun: error: node2: task 2: Terminated",
    ],
}


@pytest.mark.parametrize("version", KILL_ON_BAD_EXIT)
@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("node2: task 3: Exited with exit code 1", End("node2", (3,), code=1)),
        ("node2: task 3: Exited with exit code 137", End("node2", (3,), signal=9)),
        ("node2: task 3: Exited with exit code 255", End("node2", (3,), code=255)),
        ("node2: task 3: Killed", End("node2", (3,), signal=9)),
        ("node2: task 3: Segmentation fault (core dumped)", End("node2", (3,), signal=11)),
        ("node2: task 3: Aborted", End("node2", (3,), signal=6)),
        ("node2: task 3: Bus error", End("node2", (3,), signal=7)),
        ("node2: task 3: Out Of Memory", End("node2", (3,), signal=9, out_of_memory=True)),
        ("node[2-3]: tasks 2,4-5: Exited with exit code 2", End("node[2-3]", (2, 4, 5), code=2)),
    ],
)
def test_the_process_that_failed_first_is_named_in_every_version(version: str, how: str, end: End) -> None:
    lines = ["step 1/9 (0.1 epochs): loss 1", f"srun: error: {how}", *KILL_ON_BAD_EXIT[version]]
    assert first_end(lines) == end
    # srun may hear of others first: what was told to end did not fail by itself.
    assert first_end([*KILL_ON_BAD_EXIT[version], f"srun: error: {how}"]) == end


def test_processes_that_were_all_told_to_end_have_the_first_of_them() -> None:
    assert first_end(KILL_ON_BAD_EXIT["22.05"]) == End("node2", (2,), code=85)
    assert first_end(["hello"]) is None


def test_the_job_scripts_own_report_of_processes_is_read_like_sruns() -> None:
    assert first_end(["recipe: node1: rank 3: Exited with exit code 139"]) == End("node1", (3,), signal=11)


def traceback(error: str, prefix: str = "") -> list[str]:
    lines = ["Traceback (most recent call last):", '  File "a.py", line 7, in <module>', "    f()", "    ~^^", error]
    return [prefix + line for line in lines]


ONE = ["srun: error: node2: task 3: Exited with exit code 1", *KILL_ON_BAD_EXIT["22.05"]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # With several processes: that of the one that failed first, however their lines are mixed.
        ([*traceback("ValueError: of 3", "[rank 3] "), *traceback("RuntimeError: connection closed"), *ONE],
         "ValueError: of 3"),
        (["[rank 3] neobert: a.tsv: No such file", *traceback("RuntimeError: lost", "[rank 1] "), *ONE],
         "a.tsv: No such file"),
        ([*traceback("ValueError: of 3", "[rank3]: "), "step 2/9 (0.1 epochs): loss 1", *ONE], "ValueError: of 3"),
        ([*traceback("RuntimeError: only this"), *ONE], "RuntimeError: only this"),
        (["FATAL:   could not open image /x.sif: no such file", *ONE], "could not open image /x.sif: no such file"),
        # Of one process.
        (["neobert: model: is required", "data: is required"], "model: is required"),
        (["neobert trial: error: unrecognized arguments: --x"], "unrecognized arguments: --x"),
        (["recipe: node1: the secret X is not in the environment of the job"],
         "node1: the secret X is not in the environment of the job"),
        ([*traceback("KeyError: 'a'"), "", "During handling of the above exception, another exception occurred:", "",
          *traceback("ValueError: b")], "ValueError: b"),
        (["ValueError: Caught ValueError in DataLoader worker.", "Original Traceback (most recent call last):",
          "  f()", "ValueError: bad row"], "ValueError: bad row"),
        ([*traceback("ValueError: real"), "Exception ignored in: <function f at 0x1>", *traceback("OSError: late")],
         "ValueError: real"),
        (["terminate called after throwing an instance of 'c10::Error'", "  what():  device-side assert"],
         "device-side assert"),
        (["Fatal Python error: Segmentation fault", "", "Current thread 0x1:", '  File "a.py"'],
         "Fatal Python error: Segmentation fault"),
        # A message that progress followed was not the end.
        (["neobert: try again", "step 3/9 (0.3 epochs): loss 1", "it does not work"], "it does not work"),
        # srun itself, before any process started.
        (["== attempt 1, job 7 on node1, 2026", "srun: error: Unable to create step for job 7: Memory required by task "
          "is not available"], "srun: Unable to create step for job 7: Memory required by task is not available"),
        (["== attempt 1, job 7 on node1, 2026", "srun: unrecognized option '--foo'", 'Try "srun --help" for more '
          "information"], "srun: unrecognized option '--foo'"),
        (["srun: error: Step requested GRES but job doesn't have GRES", "srun: error: Unable to create step for job 7: "
          "Invalid generic resource (gres) specification"],
         "srun: Step requested GRES but job doesn't have GRES; srun: Unable to create step for job 7: "
         "Invalid generic resource (gres) specification"),
        (['srun: error: unrecognized --cpu-bind argument "x"', "srun: fatal: Failed to parse --cpu-bind= values."],
         'srun: unrecognized --cpu-bind argument "x"; srun: Failed to parse --cpu-bind= values.'),
        (["slurmstepd-node2: error: execve(): /no/x: No such file or directory", *ONE],
         "slurmstepd: execve(): /no/x: No such file or directory"),
        (["[2026-11-29T17:56:54.912] error: execve(): /no/x: No such file or directory", *ONE],
         "slurmstepd: execve(): /no/x: No such file or directory"),
        # Neither progress, nor the header, nor what bash says of an end.
        (["== attempt 1, job 7 on node1, 2026", "it does not work", "step 3/9 (0.3 epochs): loss 1",
          "evaluation at step 3: accuracy 0.5", "  3%|3         | 12/400 [00:01<00:40,  9.7step/s]",
          "17it [00:02, 8.1it/s]",
          "/x/job.sh: line 117: 4242 Killed                  env A=b python"], "it does not work"),
        (["== attempt 1, job 7 on node1, 2026", "step 3/9 (0.3 epochs): loss 1"], ""),
    ],
)  # fmt: skip
def test_the_message_is_that_of_what_failed(lines: list[str], expected: str) -> None:
    assert message(lines, first_end(lines)) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["neobert: warning of another", "step 3/9 (0.3 epochs): loss 1"], ""),
        (["hello", "[rank 1] neobert: the connection is gone", "Killed"], ""),
        (["terminate called", "  what():  std::bad_alloc"], "std::bad_alloc"),
    ],
)
def test_of_a_process_that_a_signal_ended_only_its_own_message_is_shown(lines: list[str], expected: str) -> None:
    assert message(lines, End("node1", (0,), signal=signal.SIGKILL)) == expected


def test_bars_and_colours_leave_what_a_terminal_shows_in_the_end() -> None:
    bar = "\r  3%|3         | 12/400 [00:01<00:40,  9.7step/s]"
    end = "srun: error: node1: task 0: Killed"
    assert first_end(lines_of(f"fine\n{bar}{bar}{end}\n")) == End("node1", (0,), signal=9)
    assert lines_of("a\x1b[31mred\x1b[0m\r\n1%|\r2%|\rdone\n") == ["ared", "done", ""]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 21:40:45 DUE TO TIME LIMIT ***", "TIMEOUT"),
        ("slurmstepd-node1: error: *** JOB 5 ON node1 CANCELLED AT 21:40:45 DUE TO PREEMPTION ***", "PREEMPTED"),
        ("slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 21:40:45 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR "
         "DETAILS ***", "NODE_FAIL"),
        ("[2026-11-29T17:56:54.912] error: *** STEP 5.0 ON n1 CANCELLED AT 21:40:45 DUE TO TIME LIMIT ***",
         "TIMEOUT"),
        ("[2026-11-29T17:56:54.912] error: *** STEP 5.0 ON n1 CANCELLED AT 21:40:45 DUE to SIGNAL Terminated ***",
         ""),
        ("slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 21:40:45 ***", ""),
        ("the text says *** JOB 5 ON node1 CANCELLED AT NOON DUE TO TIME LIMIT ***", ""),
    ],
)  # fmt: skip
def test_slurm_says_why_it_ended_a_job(line: str, verdict: str) -> None:
    after = ["srun: error: node1: task 0: Terminated", "srun: error: node1: task 1: Killed"]
    assert slurms_verdict([line, *after]) == verdict
    assert slurms_verdict([*ONE, line]) == "", "one had failed before"


@pytest.mark.parametrize(
    "text",
    [
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of your processes may have been killed",
        "slurmstepd-node2: error: Detected 1 oom_kill event in StepId=7.0. Some step tasks have been OOM Killed.",
        "[2026-11-29T17:56:54.912] error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks",
        "srun: error: node2: task 3: Out Of Memory",
        *(
            f"Traceback (most recent call last):\n  f()\n{error}"
            for error in (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
                "torch.cuda.OutOfMemoryError: CUDA out of memory",
                "RuntimeError: CUDA error: out of memory",
                "torch.AcceleratorError: CUDA error: out of memory",
                "MemoryError",
                "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB",
                "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 bytes",
                "OSError: [Errno 12] Cannot allocate memory",
                "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. ",
            )
        ),
        "neobert: /data/x.npz: Cannot allocate memory",
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
    ],
)
def test_memory_that_ran_out_is_told_by_slurm_or_by_the_process(text: str) -> None:
    lines = lines_of(text)
    end = first_end(lines)
    assert is_out_of_memory(lines, end, message(lines, end))


@pytest.mark.parametrize(
    "text",
    [
        "if you run out of memory, make the batch smaller",
        "MemoryError is what the training text says\nneobert: a.tsv: No such file",
        "example: slurmstepd: error: Detected 1 oom-kill event(s)\nneobert: bad row",
        "Traceback (most recent call last):\n  f()\nValueError: no label 'CUDA out of memory'",
        "warning: OutOfMemoryError was caught, going on\nstep 3/9 (0.3 epochs): loss 1\nneobert: bad row",
    ],
)
def test_other_output_that_speaks_of_memory_deceives_nobody(text: str) -> None:
    lines = lines_of(text)
    assert not is_out_of_memory(lines, None, message(lines, None))
