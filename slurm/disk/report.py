"""Estimates of the disk as people read them."""

from __future__ import annotations

from slurm.disk.estimate import Estimate
from slurm.results import Table


def bytes_text(count: int) -> str:
    """`0 B`, `1.6 MB`, `92 MB`, `4.6 GB`, in powers of ten, as disks are sold."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    digits = 1 if size < 9.95 and units[0] != "B" else 0
    return f"{size:.{digits}f} {units[0]}"


def stages_table(found: Estimate) -> Table:
    """The stages that take something, as far as that is known."""
    rows = [stage for stage in found.stages if stage.peak]
    cells = ((row.stage, row.trials, *map(bytes_text, (row.each, row.peak, row.stays))) for row in rows)
    return Table(("disk", "trials", "each at most", "together", "stays"), tuple(cells))


def notes(found: Estimate) -> list[str]:
    """What is known of all stages together, and why nothing is of some."""
    reasons = dict.fromkeys(stage.unknown for stage in found.stages if stage.unknown)
    lines = []
    for reason in reasons:
        names = ", ".join(stage.stage for stage in found.stages if stage.unknown == reason)
        lines.append(f"disk for {names} is not known: {reason}")
    others = " for the others" if reasons else ""
    if found.peak:
        lines.append(f"disk{others}: at most {bytes_text(found.peak)} while it runs, {bytes_text(found.stays)} stay; "
                     f"{bytes_text(found.free)} are free in {found.place}")  # fmt: skip
    return lines


def warning(found: Estimate) -> str | None:
    """What is said where it does not fit."""
    if found.fits:
        return None
    return (
        f"this may fill the disk: checkpoints take at most {bytes_text(found.peak)} at once, and "
        f"{bytes_text(found.free)} are free in {found.place}. `recipe clean` removes what is not needed of a run; "
        "array.parallel lets fewer trials run at once; --runs puts runs on another disk"
    )
