"""Random numbers and orders that are pure functions: of a seed and a place, and of nothing that came before.

What a training sees, and what of it is masked, is computed from these. So there is no generator whose state would have
to be saved, and no order that would have to be kept in memory: a resumed run, with whatever number of processes and
workers, sees what the undisturbed one would have seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.uint64]]

_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 4
_ALL = (1 << 64) - 1


def mix(values: Numbers) -> Numbers:
    """SplitMix64's finaliser (https://doi.org/10.1145/2714064.2660195): 64 bits in, 64 well-stirred bits out."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def key(*parts: int) -> int:
    """One number of 64 bits for several numbers in their order."""
    stirred = np.zeros(1, np.uint64)
    for part in parts:
        stirred = mix(stirred ^ np.uint64(part & _ALL))
    return int(stirred[0])


def uniform(values: Numbers) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers in [0, 1), from 64 stirred bits each."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers below `count` in a random order."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ np.uint64(key(seed))), kind="stable")


def permuted(seed: int, count: int, places: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which numbers stand at `places` in a random order of all numbers below `count`, whose length costs nothing.

    A Feistel network over the next power of four; a number from beyond `count` is sent through it again.
    """
    half = max((count - 1).bit_length() + 1, 2) // 2
    low = np.uint64((1 << half) - 1)
    keys = [np.uint64(key(seed, turn)) for turn in range(_ROUNDS)]

    def once(values: Numbers) -> Numbers:
        left, right = values >> np.uint64(half), values & low
        for turn in keys:
            left, right = right, left ^ (mix(right ^ turn) & low)
        return (left << np.uint64(half)) | right

    found = once(np.asarray(places, np.uint64))
    while (beyond := found >= count).any():
        found[beyond] = once(found[beyond])
    return found.astype(np.int64)
