"""The one exception that users of the cluster see."""

from __future__ import annotations


class ClusterError(Exception):
    """Says what went wrong and what to do or read next."""
