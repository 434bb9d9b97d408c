"""Which pieces share a row."""

from __future__ import annotations

from typing import Any

import numpy as np

Lengths = np.ndarray[Any, np.dtype[np.int64]]


def pack(lengths: Lengths, capacity: int) -> list[list[int]]:
    """Rows of pieces, by number, of at most `capacity` tokens each; every piece is in one of them.

    Best fit, longest first: each piece goes where it leaves the least room. With pieces of mixed lengths hardly any
    room is left. Raises `ValueError` for a piece that is longer than a row.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit into a row of {capacity}")
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by how many tokens still fit
    some = 0  # bit r is set if with_room[r] is not empty
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = some >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                some ^= 1 << room
            rows[row].append(piece)
        else:
            room, row = capacity, len(rows)
            rows.append([piece])
        with_room[room - length].append(row)
        some |= 1 << (room - length)
    return rows


def bucket(lengths: Lengths, capacity: int) -> list[list[int]]:
    """Rows of pieces of like length, which together take at most `capacity` tokens once they are padded."""
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit into {capacity}")
    rows: list[list[int]] = []
    longest = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        if not rows or longest * (len(rows[-1]) + 1) > capacity:
            rows.append([])
            longest = int(lengths[piece])
        rows[-1].append(piece)
    return rows
