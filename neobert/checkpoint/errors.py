"""What is raised for a checkpoint that cannot be used."""

from __future__ import annotations


class UnusableCheckpoint(Exception):
    """There is no checkpoint, or it is not whole, or it is none of a model that can be built here."""
