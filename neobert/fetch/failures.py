"""What went wrong with the hub, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from neobert.config import ConfigError
from neobert.config.hub import HubName
from neobert.errors import RunError

NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2")
"""Packages whose exceptions are of the connection: which is used changes with the version of the hub's library."""
LIBRARIES = (*NETWORK, "huggingface_hub", "datasets", "pyarrow")
NO_TOKEN = "set HF_TOKEN (`secrets: [HF_TOKEN]` in recipe or profile takes it into a container)"

Cause = TypeVar("Cause", bound=BaseException)


@contextmanager
def explained(wanted: HubName) -> Iterator[None]:
    """Raises `ConfigError` for what the hub does not have or does not give, and `RunError` for what may pass."""
    try:
        yield
    except (ConfigError, RunError):
        raise
    except Exception as error:
        if _package(error) not in LIBRARIES and not isinstance(error, OSError | ValueError | RuntimeError):
            raise  # a mistake of ours, whose traceback is needed
        raise _explanation(wanted, error) from None


def _explanation(wanted: HubName, error: Exception) -> ConfigError | RunError:
    hub, name, is_data = constants.ENDPOINT, wanted.name, wanted.kind in ("dataset", "text")
    causes = list(_causes(error))
    if _first(causes, GatedRepoError):
        token = "the token in use is not that of somebody who has" if get_token() else NO_TOKEN
        page = f"{hub}/datasets/{name}" if is_data else f"{hub}/{name}"
        return ConfigError(f"{name} is gated: accept its terms at {page} first; {token}")
    if _first(causes, RepositoryNotFoundError):
        token = "the token in use does not open it" if get_token() else NO_TOKEN
        return ConfigError(f"{hub} has no {'data set' if is_data else 'model'} {name}; if it is private, {token}")
    if _first(causes, RevisionNotFoundError):
        return ConfigError(f"{name} has no revision {wanted.revision!r}")
    if refused := _first([cause for cause in causes if not isinstance(cause, EntryNotFoundError)], HfHubHTTPError):
        status = refused.response.status_code
        if status in (401, 403):
            return ConfigError(f"{hub} refuses {name} to the token in use (HF_TOKEN): {_message(refused, 1)}")
        return RunError(f"{name}: {hub} failed: {_message(refused, 1)}")
    if lost := next((cause for cause in causes if _package(cause) in NETWORK), None):
        return RunError(
            f"{hub} cannot be reached: {_message(lost)}. A machine with a connection is needed, such as a login node; "
            "HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror"
        )
    if _first(causes, json.JSONDecodeError):
        return RunError(f"{name}: what {hub} answers is not what a hub answers; is HF_ENDPOINT right?")
    if failed := next((cause for cause in causes if isinstance(cause, OSError) and cause.errno is not None), None):
        return RunError(f"{failed.filename or constants.HF_HUB_CACHE}: {failed.strerror}")
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return RunError(f"{name}: {_message(error)}")
    if _first(causes, HFValidationError):
        return ConfigError(f"{name!r} is neither a directory here nor a name on the hub, such as OWNER/NAME")
    return ConfigError(f"{name}: {_message(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Libraries wrap what they have caught, also where they say `from None`: any of these may say most."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(causes: list[BaseException], kind: type[Cause]) -> Cause | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _message(error: BaseException, shown: int = 2) -> str:
    """Its first lines: those after them are advice to programmers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:shown]) or type(error).__name__
