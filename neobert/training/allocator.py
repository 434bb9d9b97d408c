"""Memory that a training on CPUs frees, and needs again a moment later."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed, for this process and from now on; elsewhere, does nothing.

    It gives large pieces back to the system at once, which has to clear each page anew before the next step can write
    to it: a tenth of a step's time where the gradient of an embedding is most of what is allocated.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
