"""The commands `recipe image ...`: argument parsing and printing alone."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from slurm.encoding import echo

TERMINATED = 143


@click.group()
def image() -> None:
    """Build container images, and check whether one fits."""


@image.command(epilog="\b\nExample:\n  recipe image build gpu --base docker://REGISTRY/NAME:TAG -o neobert.sif")
@click.argument("kind", type=click.Choice(["cpu", "gpu"]), default="cpu")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Where to; by default neobert-KIND.sif."
)
@click.option("--base", metavar="URI", help="Base of the GPU image: docker://NAME:TAG, another URI, or a local image.")
@click.option("--python", metavar="X.Y", help="The base's version of Python, if it is not that of the default base.")
@click.option("--mirror", metavar="URL", help="Debian mirror for the CPU image; by default that of this machine's apt.")
@click.option("--force", is_flag=True, help="Build even if nothing changed.")
@click.option(
    "--any-code", is_flag=True, help="Keep an image whose code alone is older: jobs run the submitted code anyway."
)
def build(
    kind: str,
    output: Path | None,
    base: str | None,
    python: str | None,
    mirror: str | None,
    force: bool,
    any_code: bool,
) -> None:
    """Build the image for CPUs or for GPUs, unless it is there already and nothing changed.

    Packages come from pip's own configuration on this machine, in the versions of the lock. The image appears in its
    place when it is complete and has passed its test; FILE.json beside it records its digest.
    """
    from slurm.image import host
    from slurm.image.build import Order, build
    from slurm.image.definitions import make_spec
    from slurm.image.process import BuildError
    from slurm.image.project import find_source

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that what was begun is removed
    spec = make_spec("cpu" if kind == "cpu" else "gpu", base, python)
    if mirror and kind == "gpu":
        raise click.UsageError("--mirror is for the CPU image; --base names what the GPU image is built on")
    target = (output or Path(f"neobert-{kind}.sif")).absolute()
    order = Order(spec, find_source(), target, force=force, any_code=any_code, mirror=mirror)
    try:
        build(order, host.builder(spec.kind), echo)
    except BuildError as error:
        raise click.ClickException(str(error)) from None


@image.command(epilog="\b\nExample:\n  recipe image check /shared/neobert.sif recipes/demo.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("recipe", required=False)
def check(file: Path, recipe: str | None) -> None:
    """Tell whether the image FILE fits the packages that are locked here, and what RECIPE asks for.

    Exit code 0 if it fits. Older code in it is only noted: jobs run the code that was submitted.
    """
    from slurm.image import host
    from slurm.image.check import Needs, differences, needs_of
    from slurm.image.project import find_source

    found = differences(host.engine(), file, find_source(), needs_of(recipe) if recipe else Needs())
    fits = all(one.note for one in found)
    echo(f"{file} {'fits' if fits else 'does not fit'}")
    for one in found:
        note = " (only a note: jobs run the submitted code)" if one.note else ""
        echo(f"  {one.what}: the image has {one.has}, needed is {one.needed}{note}")
    if not fits:
        echo("`recipe image build` makes one that does")
        sys.exit(1)
