"""The fixtures themselves: where they skip, where they fail, and what a killed session leaves to the next."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.cluster import Cluster, plugin, requirements
from tests.cluster.locks import FileLock, locked


@pytest.fixture
def impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "missing", lambda: "the test cluster needs a miracle")


@pytest.mark.usefixtures("impossible")
def test_where_there_can_be_no_cluster_its_tests_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="the test cluster needs a miracle"):
        next(plugin.for_this_session("-none", accounting=False))


@pytest.mark.usefixtures("impossible")
def test_in_ci_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"CI must run this test, but .* a miracle"):
        next(plugin.for_this_session("-none", accounting=False))


def test_all_of_one_machine_share_a_cluster_which_the_last_one_ends(
    plain_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two generators here stand for two workers: what they share is the lock on a file, not this process."""
    first, second = (plugin.for_this_session("-own", accounting=False) for _ in range(2))
    one = next(first)
    network, started = one.layout.network, one.layout.slurm_conf.stat().st_mtime_ns
    two = next(second)
    assert (two.dir, two.layout.network, two.layout.slurm_conf.stat().st_mtime_ns) == (one.dir, network, started)
    first.close()
    assert two.is_up
    second.close()
    assert not two.is_up
    assert list(one.dir.parent.glob(f"{one.dir.name}*")) == []


def test_what_a_killed_session_left_is_replaced(plain_cluster: Cluster) -> None:
    left = Cluster(f"{plain_cluster.dir}".replace("-plain", "-own"), nodes=1, accounting=False)
    left.up()
    session = plugin.for_this_session("-own", accounting=False)
    one = next(session)
    assert one.dir == left.dir
    assert one.layout.spec.nodes == 4
    session.close()
    assert not one.dir.exists()


def test_a_lock_is_exclusive_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        assert not FileLock(path).try_exclusive()
    assert not path.exists()


def test_a_shared_lock_becomes_exclusive_for_the_last_holder(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    one.acquire(shared=True)
    two.acquire(shared=True)
    assert not one.try_exclusive()
    assert two.try_exclusive()


def test_who_waits_for_a_lock_does_not_get_a_file_that_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder, waiting = FileLock(path), FileLock(path)
    holder.acquire()
    assert not waiting._try(fcntl.LOCK_EX)  # it has the file open from now on
    holder.release()
    waiting.acquire(timeout=5)
    assert not FileLock(path).try_exclusive()
    waiting.release()
