"""Checkpoints of every layout that NeoBERT has been saved in: found, read, verified, and written for the hub."""

from neobert.checkpoint.errors import UnusableCheckpoint
from neobert.checkpoint.find import Found, find, is_neobert
from neobert.checkpoint.load import Loaded, load

__all__ = ["Found", "Loaded", "UnusableCheckpoint", "find", "is_neobert", "load"]
