"""Damage to files that keep their size; and markers as an older version wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PAGE = 4096


def zero_page(file: Path) -> None:
    """Zeroes a page in the middle; of a small file the second half."""
    content = bytearray(file.read_bytes())
    start = len(content) // 2
    stop = min(start + PAGE, len(content))
    assert any(content[start:stop])
    content[start:stop] = bytes(stop - start)
    file.write_bytes(content)


def zero_end(file: Path) -> None:
    content = bytearray(file.read_bytes())
    count = min(PAGE, len(content) // 2)
    content[-count:] = bytes(count)
    file.write_bytes(content)


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


Damage = Callable[[Path], None]


def forget_checksums(checkpoint: Path) -> None:
    marker = checkpoint / "complete.json"
    known = json.loads(marker.read_text())
    del known["xxh3_128"]
    marker.write_text(json.dumps(known))
