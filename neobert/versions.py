"""Which versions a result was made with."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from neobert import __version__

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn", "scipy")


def versions(*further: str) -> dict[str, str]:
    """Of this package, of Python, and of the libraries that are installed."""
    found = {"neobert": __version__, "python": platform.python_version()}
    for name in (*LIBRARIES, *further):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
