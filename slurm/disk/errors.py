"""What is raised where a size cannot be known here."""

from __future__ import annotations


class Unknown(Exception):
    """Why a size is not known, as the end of a sentence that begins with `not known: `."""
