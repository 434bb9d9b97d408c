"""A name and a home for a uid that the system does not know, as in some containers.

Libraries ask for both. Without them they fail, or write below a directory that is really called `~`.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from neobert.errors import RunError


def ensure_account(environ: MutableMapping[str, str]) -> None:
    """Sets LOGNAME and HOME where neither the environment nor the system tells them."""
    uid = os.getuid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        environ.setdefault("LOGNAME", str(uid))
        if "HOME" not in environ:
            environ["HOME"] = str(_own_directory(uid))


def _own_directory(uid: int) -> Path:
    from neobert.config import private  # hardly anybody needs it, and a command starts without

    path = Path(tempfile.gettempdir()) / f"neobert-{uid}"
    try:
        return private.make_directory(path)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: set HOME to a directory of your own") from None
