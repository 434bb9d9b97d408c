"""The exception for sizes that cannot be known here."""

from __future__ import annotations


class Unknown(Exception):
    """Raised with the reason why a size is not known."""
