"""Access to the Hugging Face hub from machines that may have none."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from neobert.config.hub import HubName


def work_offline_if_unreachable() -> None:
    """Switches the Hugging Face libraries to their cache when the hub's name cannot be resolved.

    They would retry for half a minute before they look into the cache or give up. Must run before they are imported,
    for they read the switch once. Behind a proxy names are the proxy's business, so nothing is concluded there.
    """
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def how_to_fetch(wanted: HubName) -> str:
    """What to do where something of the hub is needed and not there; the end of a message."""
    return (
        f"  Nodes often reach no hub. `recipe fetch RECIPE`, or `neobert fetch --{wanted.kind} {wanted}`, brings it\n"
        "  into their cache from where there is a connection, such as a login node, with the same HF_HOME"
    )


def work_online() -> None:
    """Undoes what profiles set for jobs on nodes without a connection: who fetches has one, and is to use it.

    Must run before the Hugging Face libraries are imported.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.pop(name, None)
