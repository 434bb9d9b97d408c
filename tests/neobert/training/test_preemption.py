"""A signal sets a flag and does nothing else, however often it comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from neobert.training.preemption import Preemption


@pytest.fixture
def preemption() -> Iterator[Preemption]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    listening = Preemption()
    listening.listen()
    yield listening
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_either_signal_asks_to_stop_and_may_come_twice(preemption: Preemption, number: signal.Signals) -> None:
    assert not preemption.agreed()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert preemption.requested
    assert preemption.agreed()
