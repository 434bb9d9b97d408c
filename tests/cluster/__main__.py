"""The command line: python -m tests.cluster up | down | status | fault KIND [NODE]."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import Cluster, ClusterError, faults, requirements
from tests.cluster.layout import default_dir
from tests.cluster.report import report

DOWN = 3  # exit code of `status`, as the init scripts of Linux have it


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if os.geteuid() != 0:
            raise ClusterError(requirements.NOT_ROOT)
        action: Callable[[argparse.Namespace], int] = options.action
        return action(options)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def up(options: argparse.Namespace) -> int:
    cluster = Cluster(options.dir, nodes=options.nodes, accounting=options.accounting, settings=dict(options.set))
    started = time.monotonic()
    if cluster.up():
        print(f"# up in {time.monotonic() - started:.1f} s: {cluster.spec}; everything is in {cluster.dir}")
    else:
        print(f"# already up: {cluster.spec}; everything is in {cluster.dir}")
    print(f"export SLURM_CONF={shlex.quote(str(cluster.layout.slurm_conf))}")
    return 0


def down(options: argparse.Namespace) -> int:
    cluster = Cluster(options.dir)
    print(f"{cluster.dir}: {'down, nothing is left' if cluster.down() else 'was not up'}")
    return 0


def status(options: argparse.Namespace) -> int:
    cluster = Cluster(options.dir)
    if not cluster.is_up:
        print(f"{cluster.dir}: not up")
        return DOWN
    print(report(cluster.layout))
    return 0


def fault(options: argparse.Namespace) -> int:
    Cluster(options.dir).fault(options.kind, options.node)
    return 0


def parser() -> argparse.ArgumentParser:
    directory = argparse.ArgumentParser(add_help=False)
    directory.add_argument("--dir", type=Path, default=default_dir(), help="where it is (default: %(default)s)")
    result = argparse.ArgumentParser(prog="python -m tests.cluster", description=sys.modules["tests.cluster"].__doc__)
    actions = result.add_subparsers(required=True, metavar="ACTION")

    one = actions.add_parser("up", parents=[directory], help="start it, and print the line that a shell needs")
    one.add_argument("--nodes", type=int, default=4, help="how many nodes (default: 4)")
    one.add_argument("--accounting", action=argparse.BooleanOptionalAction, default=True, help="slurmdbd, for sacct")
    one.add_argument(
        "--set",
        action="append",
        default=[],
        type=key_and_value,
        metavar="KEY=VALUE",
        help="a line of slurm.conf that replaces ours or comes on top, e.g. MaxArraySize=1001",
    )
    one.set_defaults(action=up)

    one = actions.add_parser("down", parents=[directory], help="end it and remove everything, in whatever state it is")
    one.set_defaults(action=down)

    one = actions.add_parser("status", parents=[directory], help=f"what runs (exit code {DOWN}: not up)")
    one.set_defaults(action=status)

    kinds = f"KIND with NODE: {', '.join(faults.OF_A_NODE)}; without: {', '.join(faults.OF_THE_CONTROLLER)}"
    one = actions.add_parser("fault", parents=[directory], help="break something, or mend it", epilog=kinds)
    one.add_argument("kind", metavar="KIND")
    one.add_argument("node", metavar="NODE", nargs="?")
    one.set_defaults(action=fault)
    return result


def key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"KEY=VALUE is needed, not '{text}'")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
