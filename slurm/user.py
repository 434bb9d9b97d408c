"""The user on this machine. A uid may have no name and no home there: in containers, or while a directory is away."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from neobert.config import ConfigError


def user_name() -> str:
    """The user's name, as queues and file systems know it, or the uid where the system knows no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def cache_directory() -> Path:
    """Our part of the user's cache; raises `ConfigError` where there is none."""
    return _base("XDG_CACHE_HOME", ".cache") / "recipe"


def config_directory() -> Path:
    """Our part of the user's configuration; raises `ConfigError` where there is none."""
    return _base("XDG_CONFIG_HOME", ".config") / "recipe"


def _base(variable: str, folder: str) -> Path:
    named = os.environ.get(variable)
    if named:
        return Path(named)
    try:
        return Path.home() / folder
    except RuntimeError:
        raise ConfigError(f"the home directory is unknown here: set HOME or {variable}") from None
