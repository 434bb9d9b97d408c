"""Builds an image: wheels, then the definition, then the file in its place, by one build at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from neobert.config import ConfigError
from slurm.engine import Engine
from slurm.image import host, project, wheelhouse
from slurm.image.definitions import Spec
from slurm.image.labels import Sidecar, read_labels, read_sidecar, write_sidecar
from slurm.image.process import BuildError, run_logged
from slurm.locks import locked
from slurm.provenance import sha256_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """An image that somebody wants to have at `output`."""

    spec: Spec
    source: project.Source
    output: Path
    force: bool = False
    any_code: bool = False
    """Whether an image will do that differs in this project's code alone: jobs run the submitted code anyway."""
    mirror: str | None = None

    def is_met(self) -> bool:
        """Whether the image is there already, as this build would make it."""
        made = read_sidecar(self.output)
        if made is None or not self.output.is_file() or self.output.stat().st_size != made.bytes:
            return False
        if made.labels.get("neobert.definition") != self.spec.digest():
            return False
        return self.any_code or made.labels.get("neobert.source") == self.source.digest


def build(order: Order, engine: Engine, say: Say) -> bool:
    """Makes the image; returns whether that was necessary. Raises `BuildError` or `ConfigError`, and leaves what was
    at `output` as it was if anything goes wrong.
    """
    for path in (order.output, wheelhouse.cache_directory()):
        if set(str(path)) & set(":,\\"):
            raise ConfigError(f"{path}: the builder splits paths at ':' and ',', so they cannot hold these")
    if order.output.is_dir():
        raise ConfigError(f"{order.output} is a directory: give the image's file, such as {order.output}/neobert.sif")
    order.output.parent.mkdir(parents=True, exist_ok=True)
    with _alone(order.output, say) as waited:
        if order.is_met() and (waited or not order.force):
            say(f"{order.output} is up to date")
            return False
        for left in order.output.parent.glob(f".{order.output.name}.*.partial"):
            left.unlink()  # of a build that was killed: nobody else builds here now
        _build(order, engine, say)
    return True


def _build(order: Order, engine: Engine, say: Say) -> None:
    began = time.monotonic()
    log = order.output.with_name(f"{order.output.name}.log")
    log.unlink(missing_ok=True)
    arguments = _arguments(order)  # before anything that takes long: there may be no mirror
    with tempfile.TemporaryDirectory(prefix="neobert-wheel-") as folder:
        with _phase(say, "this project's wheel"):
            wheel = project.build_wheel(order.source, Path(folder), log)
        with _phase(say, "wheels of what it needs"):
            wheels = wheelhouse.resolve(order.spec, wheel, log)
        say(f"  {wheels}")
        with _phase(say, f"{engine} builds (its output: {log})"):
            _run(order, engine, arguments, wheels, wheel.parent, log)
    log.unlink()
    size = order.output.stat().st_size / 1e6
    say(f"{order.output}: {size:.0f} MB, {time.monotonic() - began:.0f} s in all")


def _run(order: Order, engine: Engine, arguments: dict[str, str], wheels: Path, wheel: Path, log: Path) -> None:
    partial = order.output.with_name(f".{order.output.name}.{os.getpid()}.partial")
    words = [
        # --force is for the labels: without it those of the base image stay (many have a version of their own).
        engine.program, "build", "--fakeroot", "--force", *host.compression(engine),
        "--bind", f"{wheels}:/mnt:ro", "--bind", f"{wheel}:/media:ro",
        *(word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))),
        str(partial), str(order.spec.definition),
    ]  # fmt: skip
    environment = {"PATH": host.search_path()}
    try:
        run_logged(words, log, f"{engine} cannot build the image", cwd=order.spec.root, env=environment)
        labels = read_labels(engine, partial)
        partial.replace(order.output)
        # Of the file in its place: submissions find the digest remembered, and need not read the image again.
        sidecar = Sidecar(str(sha256_of(order.output)), order.output.stat().st_size, labels)
        write_sidecar(order.output, sidecar, engine)
    except BuildError as error:
        prefix = engine.settings_prefix
        folder = Path(os.environ.get(f"{prefix}TMPDIR") or tempfile.gettempdir())
        hint = host.advice(str(error), folder)
        raise BuildError(f"{error}\n{hint}" if hint else str(error)) from None
    finally:
        partial.unlink(missing_ok=True)


def _arguments(order: Order) -> dict[str, str]:
    spec, source = order.spec, order.source
    values = {
        "PYTHON": spec.python,
        "VERSION": source.version,
        "COMMIT": source.commit,
        "DIRTY": source.dirty,
        "SOURCE": source.digest,
        "DEFINITION": spec.digest(),
    }
    if spec.kind == "cpu":
        return {**values, "MIRROR": order.mirror or host.debian_mirror()}
    return {**values, "BOOTSTRAP": spec.bootstrap, "BASE": spec.base}


@contextmanager
def _phase(say: Say, what: str) -> Iterator[None]:
    began = time.monotonic()
    say(what)
    yield
    say(f"  {time.monotonic() - began:.0f} s")


def _alone(output: Path, say: Say) -> AbstractContextManager[bool]:
    """Waits until no other process builds the same file; yields whether one did.

    The lock's file stays: removing it would let a third process lock a new one while a second still waits.
    """
    lock = output.with_name(f".{output.name}.lock")
    return locked(lock, lambda holder: say(f"{holder} builds {output}: waiting for it"), limit=4 * 3600)
