"""Access to the Hugging Face hub from machines that may have none."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit


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
