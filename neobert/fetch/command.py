"""`neobert fetch`: arguments in, models and data sets in the cache."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from neobert.config import ConfigError
from neobert.config.hub import FORMS, HubName, Kind, each_once
from neobert.errors import DONE, FAILED, RunError

if TYPE_CHECKING:
    from neobert.fetch.repository import Snapshot

log = logging.getLogger(__name__)

WHAT: dict[Kind, str] = {
    "model": "a model with its tokenizer, and with its code for trust_remote_code",
    "tokenizer": "a tokenizer without a model",
    "dataset": "a data set as data.hub of `glue` takes it: nyu-mll/glue:rte",
    "text": "one split (train) of a data set as `preprocess` and `pretrain` read it: allenai/c4:en:validation",
}


def fetch_parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"neobert {command}",
        usage="neobert fetch [--verify] --KIND NAME... [--KIND NAME...]",
        description="Downloads models and data sets of the hub into the cache of the Hugging Face libraries (HF_HOME), "
        "verifies them, and leaves them ready for machines without a connection. Options may be repeated.",
        epilog="What is there already is not downloaded again, so a fetch that was interrupted goes on. HF_ENDPOINT "
        "names another hub, HF_TOKEN opens what is gated. `recipe fetch RECIPE` fetches all that a recipe names.",
    )
    for kind in get_args(Kind):
        parser.add_argument(
            f"--{kind}", dest="wanted", action="append", type=_reader(kind), metavar=FORMS[kind], help=WHAT[kind]
        )
    parser.add_argument("--verify", action="store_true", help="read again what was verified before and looks untouched")
    parser.set_defaults(run=run)
    return parser


def _reader(kind: Kind) -> Callable[[str], HubName]:
    def read(written: str) -> HubName:
        try:
            return HubName.parse(kind, written)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def run(options: argparse.Namespace) -> int:
    """Returns the exit code. What the hub does not have is told at the end, when all else is there."""
    from neobert.hub import work_online
    from neobert.logs import set_up_logging
    from neobert.training.distributed import Ranks

    if not options.wanted:
        raise ConfigError(f"nothing to fetch: expected {', '.join(f'--{kind}' for kind in FORMS)}, each with a name")
    signal.signal(signal.SIGINT, _stop)
    work_online()
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "0" if sys.stderr.isatty() else "1")
    if "HF_ENDPOINT" in os.environ:  # that hub is to be asked, and not also another one, for statistics of downloads
        os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    set_up_logging(Ranks())
    problems: list[str] = []
    for wanted in each_once(options.wanted):
        try:
            for line in _fetch(wanted, options.verify):
                log.info("%s", line)
        except ConfigError as error:
            problems.append(str(error))
        except RunError as error:  # what stops one would stop the next ones too
            raise RunError("\n".join([*problems, str(error)])) from None
    if problems:
        raise ConfigError("\n".join(problems))
    return DONE


def _fetch(wanted: HubName, again: bool) -> Iterator[str]:
    if wanted.is_here:
        raise ConfigError(f"{wanted.name} is a directory of this machine, and no name on the hub")
    from neobert.fetch.failures import explained

    with explained(wanted):
        match wanted.kind:
            case "model" | "tokenizer":
                from neobert.fetch.models import fetch_model

                snapshot, *code = fetch_model(wanted, again)
                yield _told(str(wanted.kind), snapshot)
                yield from (_told("code", each) for each in code)
            case "dataset":
                from neobert.fetch.data_sets import fetch_prepared  # the library takes a second

                snapshot, prepared = fetch_prepared(wanted, again)
                yield f"{_told('data set', snapshot, wanted.config)}, prepared in {prepared}"
            case "text":
                from neobert.fetch.data_sets import fetch_text

                yield _told("text", fetch_text(wanted, again), ", ".join(filter(None, (wanted.config, wanted.split))))


def _told(what: str, snapshot: Snapshot, part: str | None = None) -> str:
    """`data set nyu-mll/glue (rte) at bcdcba7: 4 files, 1.1 MB, there already, in DIRECTORY`."""
    repository = snapshot.repository
    name = f"{repository.name} ({part})" if part else repository.name
    news = "there already"
    if snapshot.new:
        news = "new" if snapshot.new == snapshot.files else f"{snapshot.new} of them new"
    if snapshot.mended:
        news += f", {snapshot.mended} of them mended"
    files = f"{snapshot.files} file{'' if snapshot.files == 1 else 's'}"
    return f"{what} {name} at {repository.commit[:7]}: {files}, {_size(snapshot.bytes)}, {news}, in {snapshot.folder}"


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _stop(*_: Any) -> NoReturn:
    """At once: the threads that download would otherwise be waited for. What they have finished stays."""
    print("neobert: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
    os._exit(FAILED)
