"""The configuration files, which need no cluster to be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ClusterError, config
from tests.cluster.layout import Layout, Spec, State


def layout(directory: str = "/tmp/one", **spec: object) -> Layout:
    return Layout(Path(directory), Spec(**spec), "198.18.7")  # type: ignore[arg-type]


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_setting_replaces_ours_and_a_new_one_comes_on_top() -> None:
    text = config.slurm_conf(layout(settings={"MaxArraySize": "1001", "DebugFlags": "Gres"}))
    assert text.count("MaxArraySize=") == 1
    assert settings(text)["MaxArraySize"] == "1001"
    assert settings(text)["DebugFlags"] == "Gres"


def test_every_node_has_its_own_address_and_eight_gpus() -> None:
    described = layout(nodes=3)
    nodes = [line for line in config.slurm_conf(described).splitlines() if line.startswith("NodeName=")]
    assert [line.split()[1] for line in nodes] == [f"NodeAddr=198.18.7.{number}" for number in (11, 12, 13)]
    assert all(line.endswith("Gres=gpu:8") for line in nodes)
    assert config.gres_conf(described).count("/gpu/nvidia[0-7]") == 3


def test_nothing_is_written_outside_the_cluster_directory() -> None:
    described = layout("/tmp/elsewhere")
    texts = [config.slurm_conf(described), config.slurmdbd_conf(described), config.mariadb_conf(described)]
    values = [word for text in texts for line in text.splitlines() for word in line.partition("=")[2].split(",")]
    paths = [value.rpartition("=")[2] for value in values if value.rpartition("=")[2].startswith("/")]
    assert len(paths) >= 12
    assert all(path.startswith("/tmp/elsewhere/") for path in paths)


def test_without_accounting_nothing_names_slurmdbd() -> None:
    assert "slurmdbd" not in config.slurm_conf(layout(accounting=False))


def test_machines_find_each_other_and_the_host_by_name() -> None:
    assert config.hosts(layout(nodes=1), "login").splitlines() == [
        "127.0.0.1 localhost",
        "198.18.7.1 login",
        "198.18.7.2 ctl",
        "198.18.7.11 node1",
    ]


@pytest.mark.parametrize("nodes", [0, 201])
def test_the_number_of_nodes_has_limits(nodes: int) -> None:
    with pytest.raises(ClusterError, match="1 to 200"):
        Spec(nodes)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    state = State(layout(str(tmp_path), nodes=2, accounting=False, settings={"MaxArraySize": "5"}), ready=True)
    state.write()
    assert State.read(tmp_path) == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spec": {}}'])
def test_a_state_file_that_was_cut_off_is_a_cluster_that_never_came_up(tmp_path: Path, text: str) -> None:
    State.path(tmp_path).write_text(text)
    state = State.read(tmp_path)
    assert state is not None
    assert not state.ready
