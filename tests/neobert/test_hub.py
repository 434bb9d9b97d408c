"""Without a way to the hub, its libraries use their cache at once instead of retrying."""

from __future__ import annotations

import os
import socket

import pytest

from neobert.hub import work_offline_if_unreachable


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # restored afterwards


def asked(monkeypatch: pytest.MonkeyPatch, known: bool) -> list[str]:
    hosts: list[str] = []

    def look_up(host: str, port: int) -> list[object]:
        hosts.append(host)
        assert port == 443
        if not known:
            raise socket.gaierror(-2, "Name or service not known")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    work_offline_if_unreachable()
    return hosts


def test_an_unknown_host_switches_to_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, known=False) == ["huggingface.co"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_known_host_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, known=True)
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_mirror_is_asked_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443/hf")
    assert asked(monkeypatch, known=True) == ["mirror.example"]


def test_behind_a_proxy_nothing_is_concluded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert asked(monkeypatch, known=False) == []
    assert os.environ["HF_HUB_OFFLINE"] == "0"
