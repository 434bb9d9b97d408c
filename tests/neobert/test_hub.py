"""Without a way to the hub, its libraries use their cache at once instead of retrying."""

from __future__ import annotations

import os
import socket

import pytest

from neobert.config.hub import HubName
from neobert.hub import how_to_fetch, work_offline_if_unreachable, work_online


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


def test_who_fetches_works_online_whatever_jobs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    for name in switches:
        monkeypatch.setenv(name, "1")
    work_online()
    assert not set(switches) & set(os.environ)


def test_the_command_that_brings_what_is_missing_is_told() -> None:
    told = how_to_fetch(HubName("text", "allenai/c4", revision="v1", config="en", split="validation"))
    assert "`recipe fetch RECIPE`, or `neobert fetch --text allenai/c4:en:validation@v1`" in told
    assert "with the same HF_HOME" in told
