"""Images that are missing on a node, disks that are full, memory that runs out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.rundir import RunDir, TrialDir, read_log
from slurm.state import State, run_state
from tests.cluster import Cluster
from tests.cluster.config import ENFORCE_MEMORY
from tests.survival.conftest import Site, enter, same, wait_until, weights

Reference = Callable[..., TrialDir]


@pytest.fixture
def local_image(site: Site, cpu_image: Path) -> Iterator[str]:
    """The image on the nodes' own disks, at a path where the login node has it too; node2 lacks it."""
    layout = site.cluster.layout
    path = layout.local / "neobert.sif"
    for place in (layout.local, *(layout.local_on(node) for node in layout.nodes if node != "node2")):
        (place / "neobert.sif").hardlink_to(cpu_image) if _same_disk(cpu_image, place) else shutil.copy(
            cpu_image, place / "neobert.sif"
        )
    site.image = str(path)
    yield str(path)
    for place in (layout.local, *(layout.local_on(node) for node in layout.nodes)):
        (place / "neobert.sif").unlink(missing_ok=True)


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def test_a_node_without_the_image_fails_its_trial_with_its_name_and_a_retry_elsewhere_finishes_the_sweep(
    site: Site, local_image: str, reference: Reference
) -> None:
    begin = time.time()
    site.submit(site.recipe(seeds=(1, 2, 3, 4), steps=100, resources={"cpus": 32}))  # a node each
    state = site.wait_ended()
    assert state.counts == {State.DONE: 3, State.FAILED: 1}, site.log()
    (failed,) = [trial for trial in state.trials if trial.state is State.FAILED]
    assert f"node2: there is no image {local_image}" in failed.detail
    (attempt,) = [row for row in read_log(state.run.trial(failed.id).attempts) if "end" in row]
    assert attempt["end"] - begin < 60, "a bad start ends in less than a minute"
    site.cluster.fault("drain", "node2")
    site.call("retry")
    assert site.wait_ended().counts == {State.DONE: 4}, site.log()
    # 32 threads add up in another order than the reference's one.
    assert same(weights(site.files(0), 100), weights(reference(steps=100), 100), 1e-4)


def test_where_the_profile_says_so_the_job_goes_on_by_itself_without_that_node(site: Site, local_image: str) -> None:
    begin = time.time()
    resources = {"nodes": 2, "cpus": 32}
    site.submit(site.recipe(seeds=(1,), steps=100, resources=resources), bad_nodes="exclude")
    wait_until(lambda: site.attempts() == 2, 90, lambda: site.log())
    site.measure("image missing on a node: until the next attempt without that node", begin)
    assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    assert "node2" not in (site.files().path / "logs/attempt-2.log").read_text().splitlines()[0]


def test_an_image_that_cannot_use_gpus_fails_in_less_than_a_minute_and_no_node_is_blamed(site: Site) -> None:
    begin = time.time()
    recipe = site.recipe(resources={"gpus_per_node": 2, "procs_per_node": 1})  # pretended GPUs
    site.submit(recipe, bad_nodes="exclude")
    state = site.wait_ended()
    assert state.counts == {State.FAILED: 1}, site.log()
    assert state.trials[0].attempts == 1
    assert state.trials[0].detail.startswith("bad start: 2 GPUs were asked for, 0 are visible: PyTorch ")
    assert time.time() - begin < 75


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """A disk of a few megabytes that all nodes see."""
    path = site.cluster.layout.mounts / "runs"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    path.rmdir()


def test_a_full_disk_gives_a_clear_failure_and_when_there_is_room_again_a_retry_finishes(
    site: Site, small_disk: Path, reference: Reference
) -> None:
    recipe, profile = site.recipe(seeds=(1, 2), steps=300), site.site_file()
    site.call("submit", recipe, "--cluster", profile, "--runs", small_disk / "runs", "--set", "array.parallel=1")
    (path,) = (small_disk / "runs/sweep").glob("2*")
    run = RunDir(path)
    first = read_log(run.manifest)[0]["id"]
    wait_until(lambda: list(run.trial(first).path.glob("checkpoints/checkpoint-100")), 120, "no checkpoint")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as stream:
        try:
            while True:
                stream.write(b"\\0" * 65536)
                stream.flush()
        except OSError:
            pass
    wait_until(lambda: not any(t.state.active for t in run_state(run).trials[:1]), 120, "it goes on")
    ballast.unlink()
    wait_until(lambda: run_state(run).ended, 200, lambda: str(run_state(run)))
    state = run_state(run)
    assert state.trials[0].state is State.FAILED, state
    assert "no space left on device" in state.trials[0].detail.lower()
    assert state.trials[1].state is State.DONE, "the sibling came after there was room again"
    site.call("retry", path)
    wait_until(lambda: run_state(run).ended, 200, lambda: str(run_state(run)))
    assert run_state(run).counts == {State.DONE: 2}
    assert same(weights(run.trial(first), 300), weights(reference(steps=300), 300))


@pytest.mark.xdist_group("plain_cluster")  # as the tests that look whether control groups are left behind
@pytest.mark.usefixtures("memory_limits")
def test_memory_that_runs_out_is_told_as_such_and_a_retry_with_more_finishes(
    tmp_path: Path, glue: Path, image: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of its own, whose nodes hold jobs to their memory (with control groups)."""
    top = Path(tempfile.mkdtemp(prefix="oom-"))
    top.chmod(0o755)  # munge wants to reach its socket
    cluster = Cluster(top / "c", nodes=1, settings=ENFORCE_MEMORY)
    try:
        cluster.up()
        enter(cluster, tmp_path, monkeypatch)
        site = Site(cluster, tmp_path, glue, image)
        large = {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 2048}
        site.submit(site.recipe({"model": large}, steps=2, resources={"mem": "700M"}))
        state = site.wait_ended()
        assert state.counts == {State.OOM: 1}, site.log()
        site.call("retry", "--set", "resources.mem=6G")
        assert site.wait_ended().counts == {State.DONE: 1}, site.log()
    finally:
        cluster.down()
        top.rmdir()
