"""The cluster for pytest: `pytest_plugins = ["tests.cluster.plugin"]` in the topmost conftest.py.

- `cluster`: a `Cluster` of four nodes, started once per session (one for all workers of pytest-xdist) and always ended.
- `plain_cluster`: the same without accounting, which starts in about one second.

Each test that uses one has it for itself, and finds it as new: all faults undone, no jobs, all nodes idle. So it may
break what it likes. A test takes it as an argument, or by another fixture's: what `getfixturevalue` gives would be
shared with other tests, who end its jobs. Where there can be no cluster the tests are skipped, with the reason and
the remedy; where the environment has CI, they fail.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError, requirements
from tests.cluster.layout import short_id
from tests.cluster.locks import FileLock, locked
from tests.cluster.machines import last_lines
from tests.skips import skip

FIXTURES = ("cluster", "plain_cluster")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    yield from for_this_session("", accounting=True)


@pytest.fixture(scope="session")
def plain_cluster() -> Iterator[Cluster]:
    yield from for_this_session("-plain", accounting=False)


@pytest.fixture(scope="session")
def memory_limits() -> None:
    """For clusters with `ENFORCE_MEMORY`."""
    if reason := requirements.missing_memory_limits():
        pytest.skip(reason)  # in CI as well: it depends on how the machine was booted


@pytest.fixture(autouse=True)
def _undisturbed_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Autouse, so that it comes before all other fixtures of a test."""
    with ExitStack() as stack:
        for name in FIXTURES:
            if name in request.fixturenames:
                one: Cluster = request.getfixturevalue(name)
                stack.enter_context(locked(_beside(one.dir, "test"), timeout=1800))
                one.heal()
                stack.callback(_cancel_all, one)
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow_cluster: a long one; runs where CI is set, or if -m names it")
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker gets with --dist loadgroup")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in FIXTURES:  # one worker has all tests of a cluster, so that none waits for another's
            if name in getattr(item, "fixturenames", ()) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(name))
    if not os.environ.get("CI") and "slow_cluster" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow_cluster")]
        if slow:
            config.hook.pytest_deselected(items=slow)
            items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with the end of slurmctld's log, since the logs go when the session ends."""
    report = yield
    for name in FIXTURES:
        one = getattr(item, "funcargs", {}).get(name)
        if report.failed and isinstance(one, Cluster) and one.is_up:
            report.sections.append((f"slurmctld of {name}", last_lines(one.layout.log("slurmctld"), 40)))
    return report


def for_this_session(suffix: str, *, accounting: bool) -> Generator[Cluster, None, None]:
    if reason := requirements.missing():
        skip(reason)
    # The same directory in each session of this checkout, so that what a killed one left is found and removed.
    checkout = short_id(Path(__file__).resolve().parents[2])
    directory = Path(tempfile.gettempdir()).resolve() / f"slurm-test-cluster-{checkout}{suffix}"
    one = Cluster(directory, accounting=accounting)
    users = FileLock(_beside(directory, "users"))
    if users.try_exclusive():
        one.down()
    users.acquire(shared=True)
    try:
        one.up()
    except BaseException:  # what it left is there to be read, until the next session
        if users.try_exclusive():
            users.release()
        raise
    try:
        yield one
    finally:
        if users.try_exclusive():  # the last of the workers
            one.down()
            users.release()


def _beside(directory: Path, name: str) -> Path:
    return directory.with_name(f"{directory.name}.{name}")


def _cancel_all(one: Cluster) -> None:
    with suppress(ClusterError):  # the test may have ended with a broken controller; the next one gets a mended one
        one.cancel_all()
