"""The command `neobert`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from neobert import __version__
from neobert.errors import BAD_START, DONE, FAILED, USERS_MISTAKE, BadStart, RunError
from neobert.home import ensure_account
from neobert.logs import rank_prefix

RUNNERS = {
    "preprocess": "neobert.tasks.preprocess",
    "pretrain": "neobert.tasks.pretrain",
    "glue": "neobert.tasks.glue",
    "export": "neobert.tasks.export",
    "submission": "neobert.tasks.submission",
}
"""The module with `run(config, paths, ranks, preemption) -> exit code` of each task."""

CHECKS_ITSELF = {"preprocess"}
"""Tasks that look themselves whether their result still stands: what it was made of may have changed."""

BROKEN_PIPE = 141
"""As of a process that SIGPIPE has ended."""

USAGE = f"""usage: neobert TASK  [--config FILE] [key=value ...] --output-dir DIR
       neobert trial --manifest FILE --index N --output-dir DIR
       neobert fetch --model NAME ...

preprocess  makes text into shards of token ids
pretrain    trains an encoder to guess masked words
glue        fine-tunes an encoder on a GLUE task and scores it
export      writes a checkpoint of any layout as a Hugging Face model
submission  puts predictions on GLUE's test sets into a file for its server
trial       runs line N of a run's manifest; this is what job scripts call, once for each rank
fetch       downloads models and data sets of the hub, for machines without a connection

example: neobert glue task_name=rte data.generated=2000 model.allow_random_weights=true model.hidden_size=64 \\
           model.num_hidden_layers=2 model.num_attention_heads=2 optimizer.lr=1e-3 --output-dir /tmp/rte

`neobert COMMAND --help` tells more. Exit codes: 0 done, 85 checkpointed when asked to stop (run it again), 1 failed,
2 a mistake in the settings, 86 another attempt of the trial has started, 87 the processes could not come together or
lack GPUs. This is neobert {__version__}.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and ends the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")  # a terminal may not show all of Unicode
    try:
        code = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _complain("interrupted; run the same command again to resume from the last checkpoint", FAILED)
    except BrokenPipeError:  # `neobert pretrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except Exception:  # noqa: BLE001  # not foreseen: the traceback is what helps
        _print_error(traceback.format_exc())
        code = FAILED
    for number in (signal.SIGUSR2, signal.SIGTERM):  # an exit takes a second, and its code must stay what it is
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Everything is written by now. Tearing down a process group can block for ever: gloo's destructor holds the
        # interpreter's lock while it waits for a thread that needs it (seen with torch 2.13).
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs the command; returns the exit code. Mistakes and foreseen failures become one message, without traceback."""
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        print(f"neobert {__version__}\n" if arguments[:1] == ["--version"] else USAGE, end="")
        return DONE if arguments else USERS_MISTAKE
    command, *rest = arguments
    parsers = {**dict.fromkeys(RUNNERS, _task_parser), "trial": _trial_parser, "fetch": _fetch_parser}
    if command not in parsers:
        from neobert.config import nearest

        return _complain(f"{command!r} is not a command{nearest(command, parsers)}", USERS_MISTAKE)
    try:
        options = parsers[command](command).parse_intermixed_args(rest)
    except SystemExit as finished:
        return int(finished.code or 0)
    from neobert.config import ConfigError

    try:
        ensure_account(os.environ)
        code: int = options.run(options)
        return code
    except ConfigError as error:
        return _complain(str(error), USERS_MISTAKE)
    except BadStart as error:
        return _complain(f"bad start: {error}", BAD_START)
    except RunError as error:
        return _complain(str(error), FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "neobert").split(".")[0] == "neobert":
            raise
        message = f"the package {error.name} is missing: pip install 'neobert-slurm[train,eval]' brings what tasks need"
        return _complain(message, USERS_MISTAKE)
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 60) : error.end + 60]
        advice = "the locale cannot express it in a path: set PYTHONUTF8=1" if near.isprintable() else "it is not UTF-8"
        return _complain(f"{near!r}: {advice}", USERS_MISTAKE)
    except OSError as error:
        if error.errno is None:
            raise
        message = f"{error.filename or 'standard output'}: {error.strerror}"
        if error.filename and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message += ". What was complete before is untouched: make room, and the same command goes on from there"
        return _complain(message, FAILED)


class _Help(argparse.Action):
    """`--help` with all settings of the task, which need a moment to be looked at."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from neobert.config import TASKS
        from neobert.config.describe import describe

        task = parser.prog.split()[-1]
        print(f"{parser.format_help()}\nsettings (what each takes, and its default):\n{describe(TASKS[task])}")
        parser.exit()


def _task_parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"neobert {command}",
        description="Settings come from the file; key=value sets one of them, as in optimizer.lr=3e-5 data.dir=glue.",
        epilog="The same command again resumes from the newest checkpoint in DIR, and does nothing when DIR is done.",
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this, and all settings")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="a setting: dotted key, YAML value")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="where the trial's files go")
    parser.set_defaults(run=_run_trial, task=command)
    return parser


def _trial_parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"neobert {command}", description="Runs one trial of a run's manifest.")
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="JSON lines with task and config")
    parser.add_argument("--index", type=int, required=True, metavar="N", help="which line, from 0")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="where the trial's files go")
    parser.set_defaults(run=_run_trial, task=None)
    return parser


def _fetch_parser(command: str) -> argparse.ArgumentParser:
    from neobert.fetch.command import fetch_parser

    return fetch_parser(command)


def _run_trial(options: argparse.Namespace) -> int:
    started = time.monotonic()
    from neobert import settings
    from neobert.logs import set_up_logging
    from neobert.training import lease
    from neobert.training.distributed import find_ranks
    from neobert.training.preemption import Preemption
    from neobert.training.preflight import check_start
    from neobert.trial import claim_trial, is_done, open_trial, write_settings

    preemption = Preemption()
    preemption.listen()  # first of all: until then, the signal to stop would simply kill
    ranks = find_ranks(os.environ)
    set_up_logging(ranks)
    log = logging.getLogger(__name__)
    if options.task is None:
        trial = settings.from_manifest(options.manifest, options.index)
    else:
        trial = settings.from_command_line(options.task, options.config, options.settings)
    paths = open_trial(options.output_dir, trial.task, trial.config, writes=ranks.is_main)
    if is_done(paths) and trial.task not in CHECKS_ITSELF:
        log.info("already done: %s", paths.result)
        return DONE
    claim = claim_trial(paths, os.environ, ranks.is_main)
    with ExitStack() as stack:
        if claim:
            stack.enter_context(lease.hold(paths.lease, claim))
        attempt = claim.attempt if claim else None
        check_start(ranks, os.environ, paths.preflight, attempt, use_cpu=_uses_cpu(trial.config))
        if not claim:  # by now the main process has claimed it
            claim = stack.enter_context(lease.hold(paths.lease, None))
        if "RECIPE_ATTEMPT" in os.environ:
            log.info("attempt %d holds the lease of %s", claim.attempt, paths.directory)
        lease.outwait_predecessor(os.environ, started)
        if ranks.is_main:
            write_settings(paths, trial.task, trial.config)
        code: int = importlib.import_module(RUNNERS[trial.task]).run(trial.config, paths, ranks, preemption)
        return code


def _uses_cpu(config: Any) -> bool:
    """Whether a task that could use GPUs is told not to; tasks that do not train have no `trainer`."""
    return hasattr(config, "trainer") and bool(config.trainer.use_cpu)


def _complain(message: str, code: int) -> int:
    _print_error(f"neobert: {message}\n")
    return code


def _print_error(text: str) -> None:
    """Prints on standard error at once, so that lines of other processes do not come in between."""
    sys.stdout.flush()
    sys.stderr.write(textwrap.indent(text, rank_prefix(os.environ), lambda line: True))
    sys.stderr.flush()
