"""Estimates of disk space as people read them."""

from __future__ import annotations

from neobert.config.keep import bytes_text
from slurm.disk.estimate import Estimate
from slurm.results import Table


def stages_table(disk: Estimate) -> Table:
    """One row for each stage that takes space, as far as that is known."""
    stages = [stage for stage in disk.stages if stage.peak]
    rows = ((stage.stage, stage.trials, *map(bytes_text, (stage.each, stage.peak, stage.stays))) for stage in stages)
    return Table(("disk", "trials", "each at most", "together", "stays"), tuple(rows))


def notes(disk: Estimate) -> list[str]:
    """The stages whose usage is not known, with the reasons, and the sum of all others."""
    reasons = dict.fromkeys(stage.unknown for stage in disk.stages if stage.unknown)
    lines = []
    for reason in reasons:
        names = ", ".join(stage.stage for stage in disk.stages if stage.unknown == reason)
        lines.append(f"disk for {names} is not known: {reason}")
    if disk.peak:
        others = " for the others" if reasons else ""
        lines.append(
            f"disk{others}: at most {bytes_text(disk.peak)} while it runs, {bytes_text(disk.stays)} stay; "
            f"{bytes_text(disk.free)} are free in {disk.place}"
        )
    return lines


def warning(disk: Estimate) -> str | None:
    """The message for an estimate that does not fit; None for one that does."""
    if disk.fits:
        return None
    return (
        f"this may fill the disk: checkpoints take at most {bytes_text(disk.peak)} at once, and "
        f"{bytes_text(disk.free)} are free in {disk.place}. Let fewer trials run at once (array.parallel), put runs on "
        "another disk (--runs), or remove what earlier runs no longer need (`recipe clean`)"
    )
